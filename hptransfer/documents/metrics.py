"""metrics.json: the numbers of the report, one entry per suite and schema of its records."""

from dataclasses import dataclass
from typing import Literal

from hptransfer.documents.batches import CriticalBatch, TunedValue
from hptransfer.documents.values import DOCUMENT, Interval, Judgement, Optimum


@dataclass(frozen=True)
class Thresholds:
    """The suite's limits of the verdict."""

    tol: float
    """A regret proved to be above this is a drift, in nats."""
    limit: float
    """A regret proved to be below this is a transfer, in nats."""
    drift: float
    """Largest move of the optimum that counts as small, in octaves."""
    rounding: float
    """Standard deviation of a loss from one machine to another, in nats."""


@dataclass(frozen=True)
class Runs:
    """How complete the suite is."""

    found: int
    """Finished runs of the suite."""
    expected: int | None
    """Runs of the finished suite; null where they could not be counted."""
    missing: list[str]
    """A name for each run that is not there."""


@dataclass(frozen=True)
class Control:
    """The negative control."""

    optimizer: str | None
    """Its label; null where the suite names none."""
    shown: bool
    """It drifts, so the suite can see a drift."""
    sentence: str
    """The same in words."""


@dataclass(frozen=True)
class TargetJudgement:
    """An expectation at one target."""

    target: int
    """Axis value."""
    verdict: str
    """The verdict there."""
    judgement: Judgement
    """What the verdict there says of the expectation."""


@dataclass(frozen=True)
class Claim:
    """An expectation of the suite, which its largest target decides."""

    optimizer: str
    """Label."""
    expected: Literal["drifts", "transfers"]
    """The verdict that the suite expects."""
    judgement: Judgement
    """That of the largest target."""
    target: int | None
    """The largest target; null where the suite has none."""
    verdict: str | None
    """The verdict at the largest target."""
    nearer: list[TargetJudgement]
    """The other targets, rising. They decide nothing."""


@dataclass(frozen=True)
class MeasuredCost:
    """Cost of the runs at the target, and of tuning; null where no run tells."""

    seconds_per_step: float | None
    """Mean device time of a step of one run, in seconds."""
    peak_memory_bytes: float | None
    """Largest memory of a unit, with all its lanes."""
    lanes_max: int | None
    """Most runs that trained together."""
    tokens_per_second: float | None
    """Tokens or examples per second of device time."""
    flops_per_second: float | None
    """Floating-point operations per second of device time."""
    n_diverged: int
    """Runs at the target that diverged."""
    n_failed: int
    """Runs at the target that failed."""
    tuning_flops: float | None
    """Floating-point operations of the search at the proxy."""
    tuning_seconds: float | None
    """Device seconds of the search at the proxy."""
    direct_flops: float | None
    """Floating-point operations of as many trials at the target."""
    direct_seconds: float | None
    """Device seconds of as many trials at the target."""
    saving_flops: float | None
    """`direct_flops` over `tuning_flops`."""
    saving_seconds: float | None
    """`direct_seconds` over `tuning_seconds`."""


@dataclass(frozen=True)
class Transfer:
    """One optimizer, carried from the proxy to one target."""

    optimizer: str
    """Label."""
    proxy: int
    """Axis value of the search for the lr."""
    target: int
    """Axis value to which it was carried."""
    verdict: str
    """The verdict."""
    indicative: bool
    """The verdict rests on too few seeds."""
    on_edge: bool
    """Rounding decides the verdict: it stays in fewer than 90% of the redraws."""
    share_kept: float | None
    """Share of redraws with the suite's rounding in which the verdict stays."""
    seeds_needed: int | None
    """Seeds with which an inconclusive verdict would be decided, by the spread seen; null for a
    decided one, and where no number of them would do."""
    sentence: str
    """The verdict and its grounds in words."""
    optimum_at_proxy: Optimum | None
    """The best learning rate at the proxy; null where no run gave a finite loss."""
    optimum_at_target: Optimum | None
    """The best learning rate at the target."""
    log2_lr_carried: float | None
    """log2 of the learning rate that was carried: the proxy's best one, to 1/8 octave."""
    log2_lr_own: float | None
    """log2 of the target's own best learning rate, to 1/8 octave."""
    drift: Interval
    """log2 of the best lr at the target over the best one at the proxy, octaves; 95% interval."""
    regret: Interval
    """What the carried learning rate costs at the target, in nats. The interval has 96%: 2% of
    misses on each side, for the verdict is looked at several times."""
    octave_down: float | None
    """Upper bound of the cost of one octave below the best learning rate, in nats."""
    octave_up: float | None
    """Upper bound of the cost of one octave above it, in nats."""
    relative_regret: float | None
    """Regret over the loss at the own learning rate."""
    noise_floor: float | None
    """Standard error of the loss at the own learning rate, in nats."""
    n_seeds: int
    """Seeds that the regret rests on."""
    best_loss: float | None
    """Mean loss at the own learning rate, in nats."""
    carried_loss: float | None
    """Mean loss at the carried learning rate, in nats."""
    cost: MeasuredCost
    """Cost of the runs."""


@dataclass(frozen=True)
class Landscape:
    """The curve of loss over learning rate of one optimizer at one axis value."""

    optimizer: str
    """Label."""
    axis_value: int
    """Axis value."""
    optimum: Optimum | None
    """The best learning rate; null where no run gave a finite loss."""
    n_runs: int
    """Runs of the search."""
    n_diverged: int
    """Of them diverged."""
    n_failed: int
    """Of them failed."""
    sensitivity: float | None
    """Mean excess loss over the start range, log-uniform, in nats."""
    sensitivity_near: float | None
    """The same within 2 octaves of the best learning rate, in nats."""
    basin_octaves: float | None
    """Octaves with a loss within `basin_height` of the least one."""
    basin_is_open: bool | None
    """The basin reaches an edge of the tried range."""
    basin_height: float | None
    """max(0.01, twice the spread of the seeds at the best learning rate), in nats."""


@dataclass(frozen=True)
class Exponent:
    """alpha of lr*(n) ~ n^-alpha for one optimizer with at least three optima."""

    optimizer: str
    """Label."""
    exponent: Interval
    """Slope of -log2 of the best lr against log2 of the axis value, with its 95% interval."""
    n_axis_values: int
    """Axis values used."""
    left_out: list[int]
    """Axis values left out because their optimum is censored."""


@dataclass(frozen=True)
class PointsSpread:
    """How much the best learning rate of one optimizer depends on which `n_points` learning rates
    within one octave of the minimum were tried, over the curves that have more of them."""

    optimizer: str
    """Label."""
    n_points: int
    """Learning rates of a choice."""
    n_curves: int
    """Curves, each of one axis value."""
    n_subsets: int
    """Choices of so many of a curve's learning rates that have a minimum inside."""
    spread: float
    """Standard deviation of log2 of the best learning rate over the choices, in octaves."""
    largest: float
    """How far one of them lies from the best learning rate by all of the curve, in octaves."""
    standard_error: float | None
    """Standard error of the best learning rate over the seeds, in octaves; null with one seed."""
    enough: bool
    """`spread` is below `standard_error`."""


@dataclass(frozen=True)
class OptimumByLoss:
    """log2 of the best learning rate by each of the losses of a record, in octaves."""

    loss: float | None
    """By the final held-out loss."""
    train_loss: float | None
    """By the mean training loss over the last tenth of the curve."""
    train_mean: float | None
    """By the mean training loss over the whole curve."""


@dataclass(frozen=True)
class OptimizerDifference:
    """How the losses of two optimizers differ at one axis value, each at its best learning rate."""

    axis_value: int
    """Axis value."""
    first: str
    """Label."""
    second: str
    """Label."""
    difference: Interval
    """Loss of `second` minus loss of `first`, in nats, with its interval after Holm's correction
    over all differences of the suite."""
    n_seeds: int
    """Seeds that both ran."""
    p_value_holm: float | None
    """p of the t-test, after the correction."""
    differs: bool
    """Whether it is at most 0.05."""
    censored: list[str]
    """Labels of the two whose best learning rate lies at an edge of the tried range."""


@dataclass(frozen=True)
class Audit:
    """Whether the choice of the loss matters for one optimizer at one axis value."""

    optimizer: str
    """Label."""
    axis_value: int
    """Axis value."""
    log2_lr_star_by: OptimumByLoss
    """The best learning rate under each loss."""
    optima_differ: bool
    """They lie further apart than the drift threshold."""
    decides_drift: bool
    """Whether the drift exceeds its threshold depends on the loss."""


@dataclass(frozen=True)
class SuiteMetrics:
    """One suite, from its records of one schema."""

    suite: str
    """Name."""
    records_schema: int
    """Schema of the records."""
    claim: str
    """What the suite claims."""
    judgement: Judgement | None
    """The worst judgement of the expectations; null where the suite states none."""
    judgement_sentence: str
    """The same in words."""
    claims: list[Claim]
    """One per expectation of the suite."""
    negative_control: Control
    """Whether the suite can see a drift."""
    axis: str
    """The quantity that grows from the proxy to the targets."""
    proxy: int
    """Axis value of the search for the lr."""
    targets: list[int]
    """Axis values to which the lr was carried."""
    thresholds: Thresholds
    """Limits of the verdict."""
    runs: Runs
    """How complete the suite is."""
    transfers: list[Transfer]
    """One per optimizer and target."""
    landscapes: list[Landscape]
    """One per optimizer and axis value with a search."""
    exponents: list[Exponent]
    """One per optimizer with at least three optima."""
    differences: list[OptimizerDifference]
    """One per axis value and pair of optimizers that ran there."""
    points: list[PointsSpread]
    """One per optimizer and number of learning rates that suffices for a parabola; empty for
    records of schema 1."""
    audits: list[Audit]
    """One per optimizer and axis value with a search."""
    tuned: list[TunedValue]
    """One per optimizer and axis value, in a suite that compares batch sizes at equal tokens or
    numbers of steps."""
    critical_batches: list[CriticalBatch]
    """One per optimizer, in a suite with further budgets of tokens."""


@dataclass(frozen=True)
class Metrics:
    """The file metrics.json, and what tune, transfer, run and report print with --json."""

    suites: list[SuiteMetrics]
    """The suite with the newest records first."""
    schema: int = DOCUMENT
    """Version of this document."""
