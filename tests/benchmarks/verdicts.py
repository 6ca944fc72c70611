"""How often the verdict errs: simulated studies through the search, and the rule on each of them.

Prints Markdown tables: verdicts by true drift, errors and agreement, coverage of each interval; for
the rule of the package, for rule B (the same without the cubic's widening) and for the former rule.
Two studies in a row share their truth and differ in their seeds.

    python tests/benchmarks/verdicts.py [--studies 150] [--seed 0] [--surfaces flat noisy ...]
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from scipy.stats import ttest_1samp

sys.path.append(str(Path(__file__).parents[1]))
import former_rule
from hptransfer.analysis.judgement import Case, judge, verdict
from hptransfer.analysis.parabola import Interval, combination, vertex
from hptransfer.suite.tables import Thresholds
from simulated import LOOKS, Study, Surface, studies

SURFACES = {
    "very flat": Surface(0.004, 0.015, 0.006, 0.004),
    "flat noisy": Surface(0.018, 0.02, 0.015, 0.010),
    "noisy": Surface(0.030, 0.03, 0.025, 0.012),
    "typical": Surface(0.036, 0.006, 0.004, 0.003),
    "sharp": Surface(0.060, 0.02, 0.015, 0.012),
    "vit-like": Surface(0.060, 0.03, 0.020, 0.012),
    "lopsided": Surface(0.060, 0.02, 0.015, 0.006, skew=1.0),
}
DRIFTS = (0.0, -0.5, -1.0, -2.0)  # octaves from the proxy to the last target
OCTAVES = np.array([0.0, 1.0, 3.0])  # of the axis, from the proxy
LAST = 1  # the target that is judged
LIMITS = Thresholds()
WORDS = ("drifts", "inconclusive", "transfers", "insensitive")


@dataclass(frozen=True)
class Seen:
    """What a rule made of one study: verdict, seeds and runs at the target, mark (or none)."""

    verdict: str
    seeds: int
    runs: int
    on_edge: bool = False


def former(study: Study) -> Seen:
    word, runs = former_rule.verdict(study, LAST, LIMITS)
    return Seen(word, 3, runs)


def rule_b(study: Study) -> Seen:
    """The t-interval of the seeds' regrets as it is."""

    def word(case: Case) -> str:
        costs = case.seen()
        low, high = _bounds(costs.carried)
        passes = high < LIMITS.limit
        flat = max(_bounds(costs.down)[1], _bounds(costs.up)[1]) < LIMITS.tol
        if low > LIMITS.tol:
            return "drifts"
        return ("insensitive" if flat else "transfers") if passes else "inconclusive"

    return _sequential(study, LAST, word)


def _bounds(costs: np.ndarray) -> tuple[float, float]:
    found = ttest_1samp(costs[0], 0).confidence_interval(0.96)
    return float(found.low), float(found.high)


def ours(study: Study) -> Seen:
    seen = stopped(study, LAST)
    case = study.targets[LAST].looks[seen.seeds].case(study.carried, seen.seeds)
    return replace(seen, on_edge=judge(case, LIMITS, LOOKS, study.redrawn).on_edge)


def stopped(study: Study, target: int) -> Seen:
    """Where the sequence of the package's rule ends."""
    return _sequential(study, target, lambda case: verdict(case, LIMITS))


def _sequential(study: Study, target: int, word_of: Callable[[Case], str]) -> Seen:
    """Looks at each number of seeds until the verdict is no longer inconclusive."""
    word, seeds, told = "", 0, study.targets[target].looks[LOOKS[0]]
    for seeds in LOOKS:
        told = study.targets[target].looks[seeds]
        word = word_of(told.case(study.carried, seeds))
        if word != "inconclusive":
            break
    return Seen(word, seeds, told.n_runs)


RULES: dict[str, Callable[[Study], Seen]] = {"former": former, "B": rule_b, "package": ours}


@dataclass(frozen=True)
class Cell:
    """Studies of one surface and true drift, again with rounding, and what each rule made of them.

    `seen`, `again`: by rule.
    """

    surface: str
    drift: float
    studies: list[Study]
    seen: dict[str, list[Seen]]
    again: dict[str, list[Seen]]

    @classmethod
    def of(cls, surface: str, drift: float, count: int, seed: int) -> Self:
        made = studies(SURFACES[surface], drift, count=count, seed=seed)
        rng = np.random.default_rng([seed, 1])
        others = [study.rounded(rng, LIMITS.rounding) for study in made]
        seen, again = (
            {name: [rule(each) for each in some] for name, rule in RULES.items()}
            for some in (made, others)
        )
        return cls(surface, drift, made, seen, again)

    @property
    def regrets(self) -> np.ndarray:
        """True regrets of the carried lrs, nats."""
        return np.array([study.targets[LAST].regret for study in self.studies])


def share(flags: Iterable[object]) -> str:
    """Percentage of the true ones."""
    flags = [bool(flag) for flag in flags]
    return f"{100 * np.mean(flags):.1f}" if flags else "-"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"\n## {title}\n")
    print(f"| {' | '.join(head)} |")
    print(f"|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def verdict_rows(cells: Sequence[Cell]) -> Iterator[Sequence[object]]:
    for cell in cells:
        row = [cell.surface, f"{cell.drift:g}", f"{cell.regrets.mean():.3f}"]
        for name in RULES:
            words = [seen.verdict for seen in cell.seen[name]]
            row.append(" / ".join(f"{100 * np.mean([w == x for w in words]):.0f}" for x in WORDS))
        yield row


def rule_row(cells: Sequence[Cell], name: str) -> list[object]:
    """Errors and agreement of one rule over all cells."""
    pairs = [(cell.seen[name], cell.again[name], cell.regrets) for cell in cells]
    seen = [one for first, _, _ in pairs for one in first]
    flips = [a.verdict != b.verdict for first, second, _ in pairs
             for a, b in zip(first, second, strict=True)]  # fmt: skip
    unmarked = [flip for flip, one in zip(flips, seen, strict=True) if not one.on_edge]
    regrets = [float(regret) for _, _, own in pairs for regret in own]
    agree = [a.verdict == b.verdict for first, _, _ in pairs
             for a, b in zip(first[::2], first[1::2], strict=True)]  # fmt: skip
    passed = [one.verdict in ("transfers", "insensitive") for one in seen]
    drifted = [one.verdict == "drifts" for one in seen]
    judged = list(zip(regrets, passed, drifted, strict=True))
    return [
        name,
        share(agree),
        share(flips),
        share(one.on_edge for one in seen),
        share(unmarked),
        share(ok and regret > LIMITS.limit for regret, ok, _ in judged),
        share(drift and regret < LIMITS.tol for regret, _, drift in judged),
        f"{np.mean([one.runs for one in seen]):.1f}",
    ]


def covered(study: Study, seeds: Sequence[int]) -> dict[str, bool]:
    """Whether each interval holds the truth. `seeds`: at the first and the last target."""
    looks = [t.looks[s] for t, s in zip(study.targets, seeds, strict=True)]
    cases = [look.case(study.carried, s) for look, s in zip(looks, seeds, strict=True)]
    curves = [study.proxy, *(vertex(case.near) for case in cases)]
    centers = np.array([study.losses.center, *(t.losses.center for t in study.targets)])
    z = OCTAVES - OCTAVES.mean()
    slope = -z / (z @ z)
    drift = combination([curves[0], curves[2]], [-1, 1])
    moved, limit = centers[2] - centers[0], LIMITS.drift
    seen, truth = judge(cases[LAST], LIMITS), study.surface
    near = curves[2].value - centers[2]
    down, up = (float(truth.cost(z) - truth.cost(near)) for z in (near - 1, near + 1))
    return {
        "regret": holds(seen.regret, study.targets[LAST].regret),
        "lr*": holds(seen.lr_star, centers[2]),
        "drift": holds(drift, moved),
        "exponent": holds(combination(curves, slope), slope @ centers),
        "octave down": not seen.octave_down < down,
        "octave up": not seen.octave_up < up,
        "within 1/2 octave": not (-limit < drift.low and drift.high < limit and abs(moved) > limit),
    }


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def coverage_rows(cells: Sequence[Cell]) -> Iterator[list[object]]:
    """By surface and number of seeds: share of the studies in which each interval is right."""
    for surface in dict.fromkeys(cell.surface for cell in cells):
        made = [study for cell in cells if cell.surface == surface for study in cell.studies]
        for seeds in (*LOOKS, 0):
            ends = [
                [seeds or stopped(study, i).seeds for i in range(len(study.targets))]
                for study in made
            ]
            found = [covered(study, each) for study, each in zip(made, ends, strict=True)]
            yield [surface, seeds or "stopped", *(share(f[n] for f in found) for n in found[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surfaces", nargs="+", choices=SURFACES, default=list(SURFACES))
    options = parser.parse_args()
    count = options.studies + options.studies % 2
    cells = [
        Cell.of(name, drift, count, 100 * options.seed + 10 * list(SURFACES).index(name) + i)
        for name in options.surfaces
        for i, drift in enumerate(DRIFTS)
    ]
    print(
        f"# Operating characteristics of the verdict\n\n{count} studies a cell, seed "
        f"{options.seed}; tol {LIMITS.tol:g}, limit {LIMITS.limit:g}, rounding "
        f"{LIMITS.rounding:g} nat; {LOOKS} seeds."
    )
    names = ("curvature", "height", "slope", "remainder", "skew")
    table(
        "Surfaces",
        ("surface", *names),
        ([name, *(getattr(SURFACES[name], n) for n in names)] for name in options.surfaces),
    )
    table(
        f"Verdicts, %: {' / '.join(WORDS)}",
        ("surface", "drift, octaves", "mean regret, nat", *RULES),
        verdict_rows(cells),
    )
    table(
        "Errors and agreement, % of all studies",
        ("rule", "replicates agree", "rounding flips", "on the edge", "flips, unmarked",
         "transfers, regret > limit", "drifts, regret < tol", "runs at the target"),
        (rule_row(cells, name) for name in RULES),
    )  # fmt: skip
    table(
        "Intervals that hold the truth, %",
        ("surface", "seeds", "regret", "lr*", "drift", "exponent", "octave down", "octave up",
         "within 1/2 octave"),
        coverage_rows(cells),
    )  # fmt: skip


if __name__ == "__main__":
    main()
