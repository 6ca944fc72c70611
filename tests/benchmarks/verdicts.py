"""How often the verdict errs: simulated studies through the search, and the rule on each of them.

The surfaces are fitted to the committed records; those that were set by hand before come after
them. Prints Markdown tables: the fits, the surfaces, verdicts by true drift, errors and agreement,
marks, `insensitive`, coverage of each interval; for the rule of the package, for rule B (the same
without the cubic's widening) and for the former rule. Two studies in a row share their truth and
differ in their seeds.

    python tests/benchmarks/verdicts.py [--studies 150] [--seed 0] [--surfaces typical ...]
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from fitted import Recorded, recorded, surfaces
from hptransfer.analysis.judgement import judge, verdict
from hptransfer.analysis.parabola import Interval, combination, vertex
from simulated import LOOKS, Study, Surface, studies
from verdict_rules import LAST, LIMITS, RULES, Seen, bounds, stopped

RECORDS = Path(__file__).parents[2] / "results" / "reference"
BY_HAND = {
    "flat noisy": Surface(0.018, 0.02, 0.015, 0.010),
    "noisy": Surface(0.030, 0.03, 0.025, 0.012),
    "typical": Surface(0.036, 0.006, 0.004, 0.003),
    "sharp": Surface(0.060, 0.02, 0.015, 0.012),
    "vit-like": Surface(0.060, 0.03, 0.020, 0.012),
}
NUMBERS = ("curvature", "height", "slope", "remainder", "skew")
DRIFTS = (0.0, -0.5, -1.0, -2.0)  # octaves from the proxy to the last target
OCTAVES = np.array([0.0, 1.0, 3.0])  # of the axis, from the proxy
WORDS = ("drifts", "inconclusive", "transfers", "insensitive")


@dataclass(frozen=True)
class Cell:
    """Studies of one surface and true drift, again with rounding, and what each rule made of them.

    `name`: of the surface. `seen`, `again`: by rule.
    """

    name: str
    surface: Surface
    drift: float
    studies: list[Study]
    seen: dict[str, list[Seen]]
    again: dict[str, list[Seen]]

    @classmethod
    def of(cls, name: str, surface: Surface, drift: float, *, count: int, seed: int) -> Self:
        made = studies(surface, drift, count=count, seed=seed)
        rng = np.random.default_rng([seed, 1])
        others = [study.rounded(rng, LIMITS.rounding) for study in made]
        seen, again = (
            {word: [rule(each) for each in some] for word, rule in RULES.items()}
            for some in (made, others)
        )
        return cls(name, surface, drift, made, seen, again)

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
        row = [cell.name, f"{cell.drift:g}", f"{cell.regrets.mean():.3f}"]
        for rule in RULES:
            words = [seen.verdict for seen in cell.seen[rule]]
            row.append(" / ".join(f"{100 * np.mean([w == x for w in words]):.0f}" for x in WORDS))
        yield row


def rule_row(cells: Sequence[Cell], rule: str) -> list[object]:
    """Errors and agreement of one rule over some cells."""
    pairs = [(cell.seen[rule], cell.again[rule], cell.regrets) for cell in cells]
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
        rule,
        share(agree),
        share(flips),
        share(one.on_edge for one in seen),
        share(unmarked),
        share(ok and regret > LIMITS.limit for regret, ok, _ in judged),
        share(drift and regret < LIMITS.tol for regret, _, drift in judged),
        f"{np.mean([one.runs for one in seen]):.1f}",
    ]


def by_name(cells: Sequence[Cell]) -> Mapping[str, list[Cell]]:
    """The cells of each surface."""
    parts: dict[str, list[Cell]] = {}
    for cell in cells:
        parts.setdefault(cell.name, []).append(cell)
    return parts


def mark_rows(cells: Sequence[Cell]) -> Iterator[list[object]]:
    """By surface: how many verdicts are marked, and what the mark says of them."""
    parts = by_name(cells)
    for name, part in {**parts, "all": cells}.items():
        both = [
            (one, other, pair)
            for cell in part
            for one, other, pair in zip(
                cell.seen["package"], cell.again["package"], _twins(cell), strict=True
            )
        ]
        row: list[object] = [name, share(one.on_edge for one, _, _ in both)]
        for marked in (False, True):
            own = [each for each in both if each[0].on_edge == marked]
            row.append(share(one.verdict != other.verdict for one, other, _ in own))
            row.append(share(one.verdict == twin.verdict for one, _, twin in own))
        yield row


def _twins(cell: Cell) -> list[Seen]:
    """The verdict of the study that shares its truth, for each study."""
    seen = cell.seen["package"]
    return [seen[i ^ 1] for i in range(len(seen))]


def insensitive_rows(cells: Sequence[Cell]) -> Iterator[list[object]]:
    """By surface, without a drift: how flat it is, and how flat it is known to be."""
    for cell in cells:
        if cell.drift:
            continue
        down, up = (float(cell.surface.cost(z)) for z in (-1.0, 1.0))
        row: list[object] = [cell.name, f"{down:.4f}", f"{up:.4f}"]
        for seeds in LOOKS:
            cases = [study.targets[LAST].looks[seeds].case(study.carried, seeds)
                     for study in cell.studies]  # fmt: skip
            costs = [case.seen() for case in cases]
            worst = [max(bounds(each.down)[1], bounds(each.up)[1]) for each in costs]
            row.append(f"{np.median(worst):.4f}")
            row.append(share(verdict(case, LIMITS) == "insensitive" for case in cases))
        row.append(share(one.verdict == "insensitive" for one in cell.seen["package"]))
        yield row


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
    for name, part in by_name(cells).items():
        made = [study for cell in part for study in cell.studies]
        known: dict[tuple[int, ...], dict[str, bool]] = {}  # most studies stop at the first look
        for seeds in (*LOOKS, 0):
            found = []
            for i, study in enumerate(made):
                ends = [seeds or stopped(study, k).seeds for k in range(len(study.targets))]
                key = (i, *ends)
                if key not in known:
                    known[key] = covered(study, ends)
                found.append(known[key])
            yield [name, seeds or "stopped", *(share(f[n] for f in found) for n in found[0])]


def fit_rows(fits: Sequence[Recorded]) -> Iterator[list[object]]:
    """One per curve; a variance below 0 stands as minus its root."""

    def root(variance: float) -> str:
        return "-" if np.isnan(variance) else f"{np.sign(variance) * abs(variance) ** 0.5:.4f}"

    for each in fits:
        one = each.fitted
        yield [
            each.suite, each.schema, each.optimizer, each.width, one.seeds, one.runs,
            f"{one.octave:.4f}", f"{one.curvature:.4f}", root(one.height), root(one.slope),
            f"{one.remainder:.4f}", f"{one.skew:.2f}",
        ]  # fmt: skip


def surface_rows(chosen: Mapping[str, Surface]) -> Iterator[list[object]]:
    for name, surface in chosen.items():
        yield [name, *(f"{getattr(surface, number):.4f}" for number in NUMBERS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surfaces", nargs="+", help="some of them, by name; default: all")
    options = parser.parse_args()
    fits = list(recorded(RECORDS))
    fitted = surfaces([each.fitted for each in fits], LIMITS.tol)
    known = {**fitted, **BY_HAND}
    if unknown := set(options.surfaces or ()) - known.keys():
        parser.error(f"no surface {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = {name: known[name] for name in options.surfaces or known}
    count = options.studies + options.studies % 2
    cells = [
        Cell.of(
            name, surface, drift,
            count=count, seed=100 * options.seed + 10 * list(known).index(name) + i,
        )
        for name, surface in chosen.items()
        for i, drift in enumerate(DRIFTS)
    ]  # fmt: skip
    print(
        f"# Operating characteristics of the verdict\n\n{count} studies a cell, seed "
        f"{options.seed}; tol {LIMITS.tol:g}, limit {LIMITS.limit:g}, rounding "
        f"{LIMITS.rounding:g} nat; {LOOKS} seeds."
    )
    table(
        f"{len(fits)} fitted curves",
        ("suite", "schema", "optimizer", "width", "seeds", "runs", "an octave costs", *NUMBERS),
        fit_rows(fits),
    )
    table("Surfaces", ("surface", *NUMBERS), surface_rows(chosen))
    _print(cells, {"fitted": list(fitted), "by hand": list(BY_HAND)})


def _print(cells: Sequence[Cell], kinds: Mapping[str, Sequence[str]]) -> None:
    """The tables of what the rules made of the cells. `kinds`: names of surfaces by origin."""
    table(
        f"Verdicts, %: {' / '.join(WORDS)}",
        ("surface", "drift, octaves", "mean regret, nat", *RULES),
        verdict_rows(cells),
    )
    parts = {kind: [cell for cell in cells if cell.name in names] for kind, names in kinds.items()}
    table(
        "Errors and agreement, % of all studies",
        ("surfaces", "rule", "replicates agree", "rounding flips", "on the edge",
         "flips, unmarked", "transfers, regret > limit", "drifts, regret < tol",
         "runs at the target"),
        ([kind, *rule_row(part, rule)] for kind, part in parts.items() if part for rule in RULES),
    )  # fmt: skip
    table(
        "On the edge, %",
        ("surface", "marked", "flips, unmarked", "replicates agree, unmarked", "flips, marked",
         "replicates agree, marked"),
        mark_rows(cells),
    )  # fmt: skip
    table(
        "Insensitive, without a drift: upper bounds in nat, verdicts in %",
        ("surface", "octave down", "octave up",
         *(text for s in LOOKS for text in (f"bound, {s} seeds", f"fires, {s} seeds")),
         "fires, stopped"),
        insensitive_rows(cells),
    )  # fmt: skip
    table(
        "Intervals that hold the truth, %",
        ("surface", "seeds", "regret", "lr*", "drift", "exponent", "octave down", "octave up",
         "within 1/2 octave"),
        coverage_rows(cells),
    )  # fmt: skip


if __name__ == "__main__":
    main()
