"""The page of a study of transport."""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import median
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from hptransfer.report.cells import Cell, Table, between, count, nat, number, word
from hptransfer.report.render import environment
from hptransfer.report.svg import to_svg
from hptransfer.transport import figures
from hptransfer.transport.gains import Arm, Known, Relative
from hptransfer.transport.study import FULL, NONE, Study

OURS = (
    "The diagnostic, the prediction, the strength and its schedule are ours. The paper's iteration "
    "is s = 1 with a constant strength (arXiv:2605.18528, known to us by its abstract)."
)
SEEN = {
    "held": "The prediction held: no cell is shown to gain without the condition",
    "refuted": "The prediction is refuted: a cell gains without the condition",
    "undecided": "The prediction is undecided",
}


def page(
    study: Study,
    found: Sequence[Known],
    others: Sequence[Relative],
    numbers: Mapping[str, Any],
    command: str,
) -> str:
    """The HTML page of a study, without an external reference.

    `numbers`: those of `document`. `command`: makes the records.
    """
    return environment().get_template("transport.html.j2").render(
        title=study.name,
        claim=study.claim,
        completeness=f"{numbers['n_runs']} of {numbers['n_expected']} runs.",
        judged=f"{SEEN[numbers['prediction']]}. {_converse(study, found)}",
        judgement=numbers["prediction"],
        ours=OURS,
        prediction=cell_table(study, found),
        tables=[rung_table(study, found), strength_table(found), relative_table(others),
                cost_table(found), diagnostic_table(found)],
        sections=[
            {"name": name, "note": note, "svg": Markup(to_svg(figure, f"{study.name}-{i}"))}
            for i, (name, note, figure) in enumerate(_figures(found))
        ],
        command=f"pip install hptransfer=={version('hptransfer')}\n{command}",
    )  # fmt: skip


def _converse(study: Study, found: Sequence[Known]) -> str:
    """What happened where the condition was met, in words."""
    met = [each.verdict(study.tol) for each in found if each.condition == "met"]
    if not met:
        return "No cell met the condition, so whether it is enough stays untested."
    told = ", ".join(f"{met.count(v)} {v}" for v in ("gains", "hurts", "undecided") if v in met)
    return f"Of {len(met)} cells that met the condition: {told}."


SCATTER = (
    "One mark per cell, with its intervals. Right of the dotted line staleness exceeds curvature; "
    "orange marks have more staleness than noise. The prediction: above the line only marks that "
    "are orange and on the right."
)
RUNGS = (
    "One mark per cell and octave of lr, seed 0: the loss of s = 0 minus that of s = 1 at the same "
    "lr, and the diagnostic of s = 0 there. One seed each, so no mark is judged."
)
LINES = "Means over the shared seeds, each strength at its best lr. Dotted: s* of the diagnostic."


def _figures(found: Sequence[Known]) -> list[tuple[str, str, Figure]]:
    """Name, note and figure."""
    made = [
        ("Gain against the diagnostic", SCATTER, figures.prediction(found)),
        ("The same at equal learning rates", RUNGS, figures.rungs(found)),
        ("Gain against strength, constant lr", LINES, figures.strengths(found, "constant")),
        ("Gain against strength, linear decay", LINES, figures.strengths(found, "linear")),
    ]
    return [(name, note, figure) for name, note, figure in made if figure is not None]


def cell_table(study: Study, found: Sequence[Known]) -> Table:
    """One row per cell: the gain of strength 1, the condition and the verdict."""
    rows = []
    for each in found:
        plain, full = each.arm(NONE), each.arm(FULL)
        verdict = each.verdict(study.tol)
        rows.append(
            [
                word(each.cell.name, "head"),
                _loss(plain),
                _gain(full),
                between(each.straightness, 1),
                between(each.signal, 1),
                word(each.condition),
                Cell(verdict, verdict, f"v {verdict}"),
            ]
        )
    return Table(
        "The prediction",
        ("cell", "loss, s = 0", "gain of s = 1", "log2(e1/e2)", "log2(e1/ν)",
         "condition", "verdict"),
        rows,
        "gain: loss of s = 0 minus loss of s = 1, each at its best lr, nats, over shared seeds; "
        "the interval has Holm's correction over the cells. The ratios are those of the run of "
        "s = 0 at its best lr, halfway, with 95% intervals over the seeds. The condition is met "
        "where both ratios are shown to be above 1. Where it is: gains, hurts or undecided. Where "
        "it is not: contradicts for a gain that is shown, agrees for one shown to be below "
        f"{study.tol:g} nat.",
    )  # fmt: skip


def rung_table(study: Study, found: Sequence[Known]) -> Table:
    """How many equal learning rates gained, by the two parts of the condition."""
    counts: dict[tuple[bool, bool], list[float]] = {}
    for each in found:
        for rung in each.rungs:
            if (one := rung.diagnostic) is not None:
                key = one.staleness > one.curvature, one.staleness > one.noise
                counts.setdefault(key, []).append(rung.gain)
    rows = [
        [
            word("yes" if straight else "no", "head"),
            word("yes" if clear else "no"),
            count(len(gains)),
            count(sum(gain > study.tol for gain in gains)),
            count(sum(gain < -study.tol for gain in gains)),
            nat(median(gains)),
        ]
        for (straight, clear), gains in sorted(counts.items(), reverse=True)
    ]
    return Table(
        "At equal learning rates",
        ("e1 > e2", "e1 > \N{GREEK SMALL LETTER NU}", "pairs", "gain", "lose", "median gain"),
        rows,
        f"Octaves of lr at which s = 0 and s = 1 both finished on seed 0. gain, lose: by more than "
        f"{study.tol:g} nat. One seed each, so these counts judge nothing.",
    )


def strength_table(found: Sequence[Known]) -> Table:
    """One row per cell: the gain of every arm."""
    arms = list(dict.fromkeys(
        _arm_name(arm) for each in found for arm in each.arms if arm.strength != NONE or arm.star
    ))  # fmt: skip
    rows = []
    for each in found:
        by_name = {_arm_name(arm): arm for arm in each.arms}
        cells = [_gain(by_name.get(name)) for name in arms]
        star = math.nan if each.star is None else each.star
        rows.append([word(each.cell.name, "head"), *cells, number(star, f"{star:.2f}")])
    return Table(
        "Gain of every strength",
        ("cell", *arms, "value of s*"),
        rows,
        "Loss of s = 0 minus that of the arm, each at its best lr, nats; Holm's correction over "
        "the cells, arm by arm. A star: the best lr lies at an edge of the tried range. s*: the "
        "strength that the diagnostic names, min(1, e1 / (2 e2)). decay: the strength grows to s "
        "while the lr decays.",
    )


def diagnostic_table(found: Sequence[Known]) -> Table:
    """One row per diagnostic, in units of the gradient's dual norm."""
    rows = []
    for each in found:
        for one in each.diagnostics:
            size = one.gradient
            rows.append(
                [
                    word(each.cell.name, "head"),
                    count(one.point.run.seed),
                    number(one.point.run.log2_lr, f"2^{one.point.run.log2_lr:g}"),
                    number(size, f"{size:.3g}"),
                    *(number(x / size, f"{x / size:.3f}")
                      for x in (one.staleness, one.curvature, one.noise)),
                    *(number(half / whole - 1, f"{100 * (half / whole - 1):.0f}%")
                      for half, whole in ((one.staleness_half, one.staleness),
                                          (one.curvature_half, one.curvature))),
                ]
            )  # fmt: skip
    return Table(
        "Diagnostics",
        ("cell", "seed", "lr", "gradient", "e1", "e2", "ν",
         "half e1", "half e2"),
        rows,
        "Halfway through runs of s = 0. gradient: its dual norm on the large batch; e1, e2 and "
        "ν as shares of it. half: by how much e1 and e2 of half of the large "
        "batch exceed those of the whole; noise of the large batch adds to both.",
    )  # fmt: skip


def relative_table(others: Sequence[Relative]) -> Table:
    """One row per relative."""
    rows = [
        [
            word(each.group),
            word(each.label, "head"),
            number(each.best.log2_lr, f"2^{each.best.log2_lr:g}"),
            number(each.best.mean, f"{each.best.mean:.3f}"),
            nat(math.nan) if each.gain is None else between(each.gain.difference),
        ]
        for each in others
    ]
    return Table(
        "Relatives",
        ("model and batch", "optimizer", "lr", "loss", "gain over the first"),
        rows,
        "Linear decay. EMA-Nesterov takes gradients ahead along an average of displacements, on "
        "Muon (arXiv:2605.25395).",
    )


def cost_table(found: Sequence[Known]) -> Table:
    """One row per model and batch: seconds of a step without and with transport."""
    by_group: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for each in found:
        own = [(d.plain_seconds, d.ahead_seconds) for d in each.diagnostics if d.plain_seconds > 0]
        by_group.setdefault((each.cell.model, each.cell.batch), []).extend(own)
    rows = []
    for (model, batch), pairs in by_group.items():
        if pairs:
            plain, ahead = median(p for p, _ in pairs), median(a for _, a in pairs)
            ratio = median(a / p for p, a in pairs)
            rows.append([word(f"{model} batch {batch}", "head"), _milli(plain), _milli(ahead),
                         number(ratio, f"{ratio:.2f}"), count(len(pairs))])  # fmt: skip
    return Table(
        "Cost of a step",
        ("model and batch", "Scion", "transported", "ratio", "timings"),
        rows,
        "Processor time, one lane, medians. Transport keeps one buffer more, the last "
        'displacement; with store = "recompute" it keeps none, and takes a second lmo per step.',
    )


def _milli(seconds: float) -> Cell:
    return number(seconds, f"{1000 * seconds:.1f} ms")


def _arm_name(arm: Arm) -> str:
    if arm.star:
        return "s*"
    return f"{'decay' if arm.decay else 's ='} {arm.strength:g}"


def _loss(arm: Arm | None) -> Cell:
    if arm is None:
        return nat(math.nan)
    mean, lr = arm.best.mean, arm.best.log2_lr
    return number(mean, f"{mean:.3f}", f"lr 2^{lr:g}" + ("*" if arm.best.at_edge else ""))


def _gain(arm: Arm | None) -> Cell:
    if arm is None or arm.gain is None:
        return nat(math.nan)
    cell = between(arm.gain.difference)
    return Cell(cell.text + ("*" if arm.best.at_edge else ""), cell.sort, cell.css, cell.under)
