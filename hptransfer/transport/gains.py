"""What each strength gained, the diagnostic beside it, and whether the prediction held."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from hptransfer.analysis.differences import Best, best_losses
from hptransfer.analysis.frame import groups, select
from hptransfer.analysis.holm import Tested, holm
from hptransfer.analysis.parabola import Interval, mean_interval
from hptransfer.documents.transport import CellVerdict
from hptransfer.documents.values import Judgement
from hptransfer.records.diagnostics import Diagnostic, Point
from hptransfer.suite.resolved import Suite
from hptransfer.transport.search import propose
from hptransfer.transport.study import FULL, NONE, STAR, Cell, Group, Study, arms

STAR_STEP = 0.01  # s* is a multiple of this, so that machines share its runs

Condition = Literal["met", "not met", "unclear", "unknown"]


@dataclass(frozen=True)
class Arm:
    """One strength in one cell: its losses at its best lr, by seed, and its gain over strength 0.

    `decay`: the strength grows as the lr decays. `whole`: its search is finished. `gain`: loss of
    strength 0 minus that of the arm, nats, over the shared seeds, where both are whole; its
    interval is corrected for all arms of the same kind in the study.
    """

    label: str
    strength: float
    decay: bool
    star: bool
    best: Best
    whole: bool = True
    gain: Tested | None = None


@dataclass(frozen=True)
class Rung:
    """Strengths 0 and 1 at one lr, whole octaves, on seed 0.

    `gain`: loss of strength 0 minus that of strength 1, nats. `point`: the diagnostic that it asks
    for; `diagnostic`: where it is known.
    """

    log2_lr: float
    gain: float
    point: Point
    diagnostic: Diagnostic | None


@dataclass(frozen=True)
class Known:
    """What is known of a cell: its arms, and its diagnostics at the best lr of strength 0.

    `points`: those that it asks for. `rungs`: both strengths at equal learning rates.
    """

    cell: Cell
    arms: list[Arm]
    diagnostics: list[Diagnostic] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)

    @property
    def asked(self) -> list[Point]:
        """Every diagnostic that the cell asks for, each once."""
        return list({p.key: p for p in (*self.points, *(r.point for r in self.rungs))}.values())

    def arm(self, strength: float) -> Arm | None:
        """The arm of a constant strength, without s*."""
        own = (a for a in self.arms if a.strength == strength and not a.decay and not a.star)
        return next(own, None)

    @property
    def star(self) -> float | None:
        """s* = min(1, e1 / (2 e2)) of the means over seeds; None before they are all there."""
        if not self.points or len(self.diagnostics) < len(self.points):
            return None
        return star(
            sum(d.staleness for d in self.diagnostics), sum(d.curvature for d in self.diagnostics)
        )

    @property
    def straightness(self) -> Interval:
        """log2(e1/e2), octaves."""
        return _log_ratio([(d.staleness, d.curvature) for d in self.diagnostics])

    @property
    def signal(self) -> Interval:
        """log2(e1/nu), octaves."""
        return _log_ratio([(d.staleness, d.noise) for d in self.diagnostics])

    @property
    def condition(self) -> Condition:
        """Whether e1 > e2 and e1 > nu, by the intervals of both."""
        both = (self.straightness, self.signal)
        if any(math.isnan(each.value) for each in both):
            return "unknown"
        if any(each.high < 0 for each in both):
            return "not met"
        return "met" if all(each.low > 0 for each in both) else "unclear"

    def verdict(self, tol: float) -> CellVerdict:
        """What the gain of strength 1 says of the prediction, as documents.transport has it."""
        full = self.arm(FULL)
        if full is None or full.gain is None or self.condition == "unknown":
            return "incomplete"
        gain = full.gain.difference
        if self.condition == "met":
            return "gains" if gain.low > 0 else "hurts" if gain.high < 0 else "undecided"
        if self.condition == "not met" and gain.low > 0:
            return "contradicts"
        return "agrees" if gain.high < tol else "undecided"


@dataclass(frozen=True)
class Relative:
    """Another optimizer in a group, with a linear schedule.

    `gain`: loss of the group's first relative minus that of this one, nats; None for the first.
    """

    group: str
    label: str
    best: Best
    gain: Tested | None


def relatives(group: Group, suite: Suite, frame: pd.DataFrame) -> list[Relative]:
    """The relatives of a group that have a loss."""
    parts = groups(select(suite, frame))
    n = suite.proxy
    best = {
        label: found
        for label in group.table.relatives
        if (label, n) in parts and (found := best_losses(parts[label, n])) is not None
    }
    first = best.get(next(iter(group.table.relatives), ""))
    others = [label for label in best if best[label] is not first]
    samples = [] if first is None else [_paired(first, best[label]) for label in others]
    gains = dict(zip(others, holm(samples), strict=False))
    return [Relative(group.name, label, own, gains.get(label)) for label, own in best.items()]


def star(staleness: float, curvature: float) -> float:
    """The strength of least (1 - s) e1 + s^2 e2: min(1, e1 / (2 e2)), a multiple of STAR_STEP."""
    if curvature == 0:
        return 1.0
    best = min(1.0, staleness / (2 * curvature))
    return max(STAR_STEP, round(round(best / STAR_STEP) * STAR_STEP, 6))


def _log_ratio(pairs: Sequence[tuple[float, float]]) -> Interval:
    """Mean of log2(a/b) with its 95% interval over the seeds; NaN where one is 0, or for none."""
    if any(a == 0 or b == 0 for a, b in pairs):
        return Interval()
    return mean_interval([math.log2(a / b) for a, b in pairs])


def known(
    group: Group, suite: Suite, frame: pd.DataFrame, diagnostics: Mapping[str, Diagnostic]
) -> list[Known]:
    """What is known of the cells of a group; gains follow by `judged`.

    `frame`: that of the group's store.
    """
    rows = {label: part for (label, _), part in groups(select(suite, frame)).items()}
    best = {label: own for label, part in rows.items() if (own := best_losses(part)) is not None}
    whole = {label for label in best if not propose(suite, label, suite.proxy, rows[label])}
    found = []
    for cell in group.cells():
        template = suite.templates.get(cell.label(STAR))
        star_strength = None if template is None else template.hp["transport"]
        own_arms = [
            Arm(label, strength, decay, label == cell.label(STAR), best[label], label in whole)
            for label, strength, decay in arms(group.study, cell, star_strength)
            if label in best
        ]
        plain = cell.label(NONE)
        points = diagnosed(group, cell, suite, best[plain]) if plain in whole else []
        own = [diagnostics[point.key] for point in points if point.key in diagnostics]
        found.append(
            Known(cell, own_arms, own, points, _rungs(group, cell, suite, rows, diagnostics))
        )
    return found


def diagnosed(group: Group, cell: Cell, suite: Suite, best: Best) -> list[Point]:
    """The diagnostics behind s*: each seed of strength 0 at its `best` lr, halfway."""
    template = suite.templates[cell.label(NONE)]
    step, examples = group.table.steps // 2, group.study.examples
    return [
        Point(template.point(best.log2_lr, seed), step, examples) for seed in sorted(best.losses)
    ]


def _rungs(
    group: Group,
    cell: Cell,
    suite: Suite,
    rows: Mapping[str, pd.DataFrame],
    diagnostics: Mapping[str, Diagnostic],
) -> list[Rung]:
    """Whole octaves at which strengths 0 and 1 both finished on seed 0, rising."""
    plain, full = (_on_first_seed(rows.get(cell.label(s))) for s in (NONE, FULL))
    template = suite.templates[cell.label(NONE)]
    rungs = []
    for lr in sorted(plain.keys() & full.keys()):
        point = Point(template.point(lr, 0), group.table.steps // 2, group.study.examples)
        rungs.append(Rung(lr, plain[lr] - full[lr], point, diagnostics.get(point.key)))
    return rungs


def _on_first_seed(rows: pd.DataFrame | None) -> dict[float, float]:
    """log2 lr -> loss of the runs that finished on seed 0 at whole octaves."""
    if rows is None:
        return {}
    done = rows[(rows["status"] == "done") & (rows["seed"] == 0) & (rows["log2_lr"] % 1 == 0)]
    return dict(zip(done["log2_lr"], done["loss"], strict=True))


def judged(found: Sequence[Known]) -> list[Known]:
    """The cells with their gains: Holm's correction over all cells, arm kind by arm kind."""
    kinds: dict[tuple[float, bool, bool], list[tuple[int, int, list[float]]]] = {}
    for i, each in enumerate(found):
        plain = each.arm(NONE)
        for k, arm in enumerate(each.arms):
            if plain is not None and plain.whole and arm.whole and arm is not plain:
                kind = (-1.0 if arm.star else arm.strength, arm.decay, arm.star)
                kinds.setdefault(kind, []).append((i, k, _paired(plain.best, arm.best)))
    tested_arms = [list(each.arms) for each in found]
    for members in kinds.values():
        for (i, k, _), tested in zip(members, holm([s for _, _, s in members]), strict=True):
            tested_arms[i][k] = replace(tested_arms[i][k], gain=tested)
    return [replace(each, arms=own) for each, own in zip(found, tested_arms, strict=True)]


def _paired(plain: Best, arm: Best) -> list[float]:
    shared = sorted(plain.losses.keys() & arm.losses.keys())
    return [plain.losses[seed] - arm.losses[seed] for seed in shared]


def prediction(study: Study, found: Sequence[Known]) -> Judgement:
    """Whether strength 1 gains only where e1 > e2 and e1 > nu.

    Refuted by a cell that is shown to gain without the condition. Held where every cell either
    meets the condition or is shown to gain less than the tolerance.
    """
    verdicts = [each.verdict(study.tol) for each in found]
    if "contradicts" in verdicts:
        return "refuted"
    sure = [
        verdict != "incomplete" and (each.condition == "met" or verdict == "agrees")
        for each, verdict in zip(found, verdicts, strict=True)
    ]
    return "held" if sure and all(sure) else "undecided"
