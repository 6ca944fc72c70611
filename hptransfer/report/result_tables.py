"""The tables of what was measured: transfer, optima, exponents, cost, audit."""

from hptransfer.analysis import former
from hptransfer.analysis.carried import Transfer
from hptransfer.analysis.differences import Difference
from hptransfer.analysis.landscape import Audit, Exponent, Landscape
from hptransfer.analysis.points import Spread
from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import axis_name, describe_hp, enough_points, signed
from hptransfer.report.cells import (
    DASH,
    Cell,
    Table,
    between,
    count,
    duration,
    lr_star,
    nat,
    number,
    octave,
    scaled,
    word,
)

NAN = float("nan")


def _verdict(row: Transfer) -> Cell:
    marks = [
        word for word, on in (("indicative", row.indicative), ("on the edge", row.on_edge)) if on
    ]
    under = ", ".join(marks)
    return Cell(row.verdict, row.verdict, f"v {row.verdict}", under)


def transfer(suite: Question, transfers: list[Transfer]) -> Table:
    """One row per optimizer and target."""
    rows = [
        [
            word(row.optimizer, "head"),
            count(row.n),
            _verdict(row),
            lr_star(row.at_proxy),
            lr_star(row.at_target),
            between(row.drift, 2),
            between(row.regret),
            number(row.relative_regret, f"{signed(100 * row.relative_regret, 2)} %"),
            nat(row.noise_floor, 4),
            count(row.n_seeds),
            nat(row.best_loss),
            nat(row.carried.mean),
            *(_spent(row) if suite.kind == "suite" else ()),
        ]
        for row in transfers
    ]
    columns = (
        "optimizer", axis_name(suite), "verdict", f"lr* at {suite.proxy}", "lr* at target",
        "drift, octaves", f"regret, {suite.unit}", "regret, %", f"noise floor, {suite.unit}",
        "seeds", "best loss", "loss at carried lr",
        *(("time per step", "peak memory") if suite.kind == "suite" else ()),
    )  # fmt: skip
    spent = (
        " Time is the run's share of device time; memory that of the whole unit, all its lanes "
        "together."
    )
    return Table(
        "Transfer",
        columns,
        rows,
        "The second line of a cell is its standard error (±) or its interval, of 95% but for the "
        f"regret's, which has {95 if former.applies(suite) else 96}%. "
        "The best loss is the mean over the seeds at lr*, or the "
        "minimum over the search where none ran there." + (spent if suite.kind == "suite" else ""),
    )


def _spent(row: Transfer) -> tuple[Cell, Cell]:
    """Time of a step, and memory."""
    return duration(row.cost.seconds_per_step), scaled(row.cost.peak_memory, "B")


def landscape(suite: Question, landscapes: list[Landscape]) -> Table:
    """One row per optimizer and axis value with search runs."""
    columns = (
        "optimizer", axis_name(suite), "lr*", "flags", "searched", "lowest loss",
        "lr sensitivity, start range", "lr sensitivity, ±2 octaves", "basin, octaves",
        "learning rates", "runs", "diverged", "failed",
    )  # fmt: skip
    return Table(
        "Optimum and shape of each curve",
        columns,
        [_landscape(row) for row in landscapes],
        "lr sensitivity is the mean of min(L, loss at init) − L* over a log-uniform range, given "
        "only where the whole range was tried (Wortsman et al. 2023, arXiv:2309.14322). The basin "
        "is where L ≤ min + max(0.01, 2 sigma). cliff: a neighbour diverged or learned nothing, so "
        "the grid point stands, ± 0.25. With one search seed the ± is the grid's own, step / √12, "
        "which knows no seed noise: a drift then has no interval.",
    )


def _landscape(row: Landscape) -> list[Cell]:
    best, basin = row.optimum, row.basin
    flags = [f"censored {best.censored}"] if best and best.censored else []
    flags += ["cliff"] if best and best.cliff else []
    width = number(NAN, DASH)
    if basin:
        width = number(basin.width, f"{'≥ ' if basin.is_open else ''}{basin.width:.1f}")
    return [
        word(row.optimizer, "head"),
        count(row.n),
        lr_star(best),
        word(", ".join(flags)),
        word(describe_hp(best.hp) if best else ""),
        nat(best.loss if best else NAN),
        nat(basin.sensitivity if basin else NAN),
        nat(basin.relative if basin else NAN),
        width,
        count(row.n_points),
        count(row.n_search),
        count(row.n_diverged),
        count(row.n_failed),
    ]


def exponents(table: list[Exponent]) -> Table:
    """One row per optimizer with at least three optima."""
    rows = [
        [
            word(row.optimizer, "head"),
            between(row.alpha, 2),
            count(row.n_values),
            word(", ".join(map(str, row.left_out)) or "none"),
        ]
        for row in table
    ]
    return Table(
        "Exponent of lr*",
        ("optimizer", "exponent", "values used", "left out (censored)"),
        rows,
        "Slope of −log2 lr* against log2 n with its 95% interval; 0 is ideal.",
    )


def points(spreads: list[Spread]) -> Table:
    """One row per optimizer with a curve that has more points than a parabola needs."""
    sizes = sorted({each.n_points for each in spreads})
    by_label: dict[str, dict[int, Spread]] = {}
    for each in spreads:
        by_label.setdefault(each.optimizer, {})[each.n_points] = each
    rows = [
        [
            word(label, "head"),
            *(_spread(by_size.get(size)) for size in sizes),
            number(seeds := by_size[min(by_size)].seeds, f"± {seeds:.2f}"),
        ]
        for label, by_size in by_label.items()
    ]
    return Table(
        "How many learning rates are enough",
        ("optimizer", *(f"{size} learning rates" for size in sizes), "± by seeds"),
        rows,
        f"{enough_points(spreads)} The table has the standard deviation of lr*, in octaves, over "
        "all choices of so many of the learning rates that were tried within one octave of the "
        "minimum; below it how far the worst choice lies from lr* by all of them. The last column "
        "is the standard error of lr* over the seeds.",
    )


def _spread(row: Spread | None) -> Cell:
    if row is None:
        return number(NAN, DASH)
    return number(row.spread, f"{row.spread:.2f}", f"at most {row.largest:.2f}")


def cost(suite: Question, transfers: list[Transfer]) -> Table:
    """One row per optimizer and target."""
    rows = [
        [
            word(row.optimizer, "head"),
            count(row.n),
            scaled(row.cost.tuning_flops, "FLOP"),
            scaled(row.cost.direct_flops, "FLOP"),
            number(row.cost.saving_flops, f"{row.cost.saving_flops:.1f} ×"),
            duration(row.cost.tuning_seconds),
            duration(row.cost.direct_seconds),
            number(row.cost.saving_seconds, f"{row.cost.saving_seconds:.1f} ×"),
            scaled(row.cost.tokens_per_second, "/s"),
            scaled(row.cost.flops_per_second, "FLOP/s"),
        ]
        for row in transfers
    ]
    columns = (
        "optimizer", axis_name(suite), f"tuning at {suite.proxy}", "tuning directly", "saving",
        f"time at {suite.proxy}", "time directly", "saving in time", "tokens or examples",
        "model FLOPs",
    )  # fmt: skip
    return Table(
        "Cost",
        columns,
        rows,
        "Tuning at the proxy counts the runs for the lr and those for the fields of groups. "
        "Tuning directly is priced at as many trials as the proxy took, at the mean cost of the "
        "runs that were made there. Utilisation is not given, since the peak of the device is not "
        "recorded; FLOP/s are.",
    )


def differences(suite: Question, found: list[Difference]) -> Table:
    """One row per axis value and pair of optimizers."""

    def flag(row: Difference) -> Cell:
        if row.censored:
            return word(f"censored: {', '.join(row.censored)}", "flag")
        return word("differs" if row.tested.differs else "")

    rows = [
        [
            Cell(row.second, f"{row.second} {row.first}", "head", f"minus {row.first}"),
            count(row.n),
            between(row.tested.difference),
            count(row.tested.n),
            number(row.tested.p_holm, f"{row.tested.p_holm:.3g}"),
            flag(row),
        ]
        for row in found
    ]
    return Table(
        "Differences between optimizers",
        ("optimizers", axis_name(suite), f"difference, {suite.unit}", "seeds", "p (Holm)", ""),
        rows,
        "Losses where each optimizer has its best tried lr, paired by seed. Intervals and p are "
        "those of t-tests with Holm's correction over all rows; a row differs where p is at most "
        "0.05.",
    )


def audit(suite: Question, audits: list[Audit]) -> Table:
    """One row per optimizer and axis value with search runs."""

    def flag(row: Audit) -> Cell:
        flags = [
            text
            for text, on in (("optima differ", row.differs), ("drift differs", row.changes))
            if on
        ]
        return word(", ".join(flags) or "agree", "flag" if flags else "")

    rows = [
        [
            word(row.optimizer, "head"),
            count(row.n),
            octave(row.loss),
            octave(row.train_loss),
            octave(row.train_mean),
            flag(row),
        ]
        for row in audits
    ]
    return Table(
        "Metric audit",
        (
            "optimizer", axis_name(suite), "by evaluation loss", "by late training loss",
            "by mean training loss", "flag",
        ),
        rows,
        f"Flagged where the optima lie more than {suite.thresholds.drift:g} octaves apart, or "
        "where the loss used decides whether the drift exceeds that.",
    )  # fmt: skip
