"""The page of a study, its points as CSV and its exponents as JSON."""

import csv
import io
import math
from collections.abc import Sequence
from importlib.metadata import version

from markupsafe import Markup
from matplotlib.figure import Figure

from hptransfer.laboratory import figures
from hptransfer.laboratory.exponents import Fit, Name, fits, gain, growths
from hptransfer.laboratory.figures import Line, Panel, Term
from hptransfer.laboratory.gap import gaps
from hptransfer.laboratory.plan import Point, Progress
from hptransfer.laboratory.study import Study
from hptransfer.report.cells import DASH, Cell, Table, count, number, word
from hptransfer.report.render import environment
from hptransfer.report.svg import to_svg

MEANS = (
    "Mean calls of seeds that did not choose the setting. Open marks are capped, censored or "
    "diverged."
)
WORST = (
    "The exponents are worst-case rates. This objective was built so that constant steps of Scion "
    "meet them; another objective may be faster."
)
NO_RANKING = (
    "This does not rank optimizers: slopes and walls are flat over directions and commute, so sign "
    "and Euclidean steps are equivalent here, and averaging without a sign avoids the bias that "
    "skewed noise gives a median."
)
SYMMETRIC = (
    "Under symmetric noise most gradients point the right way, and a sign acts as a median, which "
    "rare large samples do not hurt. So the same method needs far fewer calls, its best batch is "
    "the least one, and its exponent hardly depends on the index: the worst case needs skew. Its "
    "many small steps have a cap of their own."
)
ONE_WALL = (
    "The noise hits one wall and nothing else. A sign keeps it there, while a Euclidean norm mixes "
    "it into every direction. No theory states these growths."
)
NORMS = "The goal is the nuclear norm for every method. No theory states these growths."
SPIKES = (
    "Rare spikes whose size and rate depend on eps, the worst case at the index itself. A batch "
    "holds a whole number of them, so the best batch and the calls jump."
)
TERMS = (
    "Noise: of a settled momentum, over that of a sample. Staleness: on a steady path without "
    "noise, against the way that X goes within the memory of the momentum. Travel: steps to the "
    "goal without noise. Dotted: the law of each."
)
NOTES = {
    "symmetric": SYMMETRIC, "methods": NO_RANKING, "one_wall": ONE_WALL, "norms": NORMS,
    "spike": SPIKES,
}  # fmt: skip
NOISES = {"sym": "symmetric noise", "skew": "skewed noise"}
TITLES = {
    "exponents": "Calls against the goal",
    "gap": "Calls against the goal",
    "dimension": "Calls against the number of directions",
    "symmetric": "The worst case needs skew",
    "methods": "Other methods on the same problem",
    "matrix": "Real matrices in place of their singular values",
    "norms": "Other norms",
    "one_wall": "Noise in one direction",
    "spike": "Rare spikes",
}


def page(study: Study, known: Sequence[Progress], command: str) -> str:
    """The HTML page of a study, without an external reference. `command`: makes its records."""
    env = environment()
    points = sum(len(each.points) for each in known)
    of = sum(len(each.series.part.log2_eps) for each in known)
    return env.get_template("study.html.j2").render(
        title=study.name,
        claim=study.claim,
        completeness=f"{points} of {of} points.{_short(study)}",
        worst=WORST,
        exponents=exponent_table("Exponents in 1/eps", fits(known)),
        growth=exponent_table("Growth with min(m, n)", growths(known)),
        gaps=gap_table(known),
        gains=gain_table(known),
        points=point_table(known),
        sections=[
            {"name": name, "note": note, "svg": Markup(to_svg(figure, f"{study.name}-{i}"))}
            for i, (name, note, figure) in enumerate(_figures(known))
        ],
        command=f"pip install hptransfer=={version('hptransfer')}\n{command}",
    )


def _short(study: Study) -> str:
    """What a reader of a shortened study has to know."""
    if not study.steps:
        return ""
    return (
        f" This is a short form of {study.source}: its goals were raised until {study.steps} steps "
        "suffice, and so far from 0 the exponents of the theory need not show."
    )


def _figures(known: Sequence[Progress]) -> list[tuple[str, str, Figure]]:
    """Title, note and figure of every part that has a point, and then of the terms."""
    made = []
    for part in dict.fromkeys(each.series.part.name for each in known):
        own = [each for each in known if each.series.part.name == part]
        if not any(each.points for each in own):
            continue
        note = " ".join(text for text in (MEANS, NOTES.get(part, "")) if text)
        if len(own[0].series.part.log2_eps) > 1:
            panels, axis, decimals = _by_goal([*own, *_skewed(own, known)]), "1/eps", ".3g"
            what = "Calls against 1/eps"
        elif len(own[0].series.part.directions) > 1:
            panels, axis, decimals = _by_directions(own), "min(m, n)", ".0f"
            what = "Calls against the number of directions"
        else:
            continue
        if not panels:
            continue  # no point of the part has a number
        figure = figures.calls(panels, axis, lambda x, d=decimals: f"{2**x:{d}}", what)
        made.append((TITLES.get(part, part), note, figure))
    if made:
        made.append(("The three terms, each measured alone", TERMS, figures.terms(_terms())))
    return made


def _terms() -> list[Term]:
    from hptransfer.laboratory.terms import terms  # torch takes long to import

    noise, stale, travel = terms()
    return [
        Term("noise in the momentum", "1 - beta", "its scale", noise),
        Term("staleness", "lr / (1 - beta)", "error of the momentum", stale),
        Term("travel", "lr", "steps", travel),
    ]


def _skewed(own: Sequence[Progress], known: Sequence[Progress]) -> list[Progress]:
    """For symmetric noise: batched Scion under skewed noise of the same index and directions."""
    wanted = {
        (each.series.index, each.series.directions)
        for each in own
        if each.series.law == "sym" and each.series.method.theory == "batched"
    }
    found: dict[tuple[float, int], Progress] = {}
    for each in known:
        series, part = each.series, each.series.part
        alike = (series.index, series.directions)
        is_line = len(part.log2_eps) > 1 and not part.aspect and series.law == "skew"
        if alike in wanted and is_line and series.method.theory == "batched":
            found.setdefault(alike, each)
    return list(found.values())


def _by_goal(known: Sequence[Progress]) -> list[Panel]:
    panels: dict[str, list[Line]] = {}
    laws: dict[float, set[str]] = {}
    for each in known:
        laws.setdefault(each.series.index, set()).add(each.series.law)
    for each, (_, fit) in zip(known, fits(known), strict=True):
        law, index = each.series.law, each.series.index
        x = [-math.log2(point.eps) for point in each.points]
        apart = len(laws[index]) > 1  # two laws share a panel
        title = f"p = {index:g}" if apart else f"{law}, p = {index:g}"
        label = NOISES.get(law, law) if apart else each.series.label
        panels.setdefault(title, []).append(Line(label, x, each.points, fit))
    return _with_points(panels)


def _with_points(panels: dict[str, list[Line]]) -> list[Panel]:
    """The panels of which a line has a point."""
    return [
        Panel(title, lines)
        for title, lines in panels.items()
        if any(math.isfinite(p.mean) for line in lines for p in line.points)
    ]


def _by_directions(known: Sequence[Progress]) -> list[Panel]:
    panels: dict[str, list[Line]] = {}
    for (_, label, noise), fit in growths(known):
        own = [
            each
            for each in known
            if each.points
            and (label, noise) == (each.series.label, f"{each.series.law} {each.series.index:g}")
        ]
        x = [math.log2(each.series.directions) for each in own]
        panels.setdefault(noise, []).append(Line(label, x, [e.points[-1] for e in own], fit))
    return _with_points(panels)


def exponent_table(caption: str, found: Sequence[tuple[Name, Fit]]) -> Table:
    """One row per fit."""
    return Table(
        caption,
        ("part", "method", "noise", "verdict", "theory", "exponent", "seeds", "one left out",
         "grid", "points"),
        [
            [
                *(word(text, "head" if i == 1 else "") for i, text in enumerate(name)),
                _verdict(fit),
                number(math.nan if fit.theory is None else fit.theory, f"{fit.theory:g}"
                       if fit.theory is not None else ""),
                number(fit.slope, f"{fit.slope:.2f}"),
                *(_range(each) for each in (fit.seeds, fit.left_out, fit.grid)),
                count(fit.n_points),
            ]
            for name, fit in found
        ],
        "Least-squares slopes of log calls. seeds: 95% of redraws of the fresh seeds; one left "
        "out: the slopes without one of the points; grid: as far as settings between those of the "
        "grid may move it. agrees: the theory's value lies in the hull of the three, which is "
        "narrower than 0.5; wider is undecided. Capped, censored and diverged points are never "
        "fitted. A dash stands where the theory states no exponent.",
    )  # fmt: skip


def _verdict(fit: Fit) -> Cell:
    return word(DASH) if fit.verdict is None else Cell(fit.verdict, fit.verdict, f"v {fit.verdict}")


def _range(bounds: tuple[float, float]) -> Cell:
    low, high = bounds
    return number(low, f"{low:.2f} to {high:.2f}")


def gap_table(known: Sequence[Progress]) -> Table:
    """One row per part and noise with both methods."""
    return Table(
        "Gap between both exponents",
        ("part", "noise", "verdict", "gap", "seeds", "one left out", "grid", "goals",
         "excludes 0", "holds 0.5"),
        [
            [
                word(gap.part),
                word(gap.noise, "head"),
                Cell(gap.verdict, gap.verdict, f"v {gap.verdict}"),
                number(gap.value, f"{gap.value:.2f}"),
                *(_range(each) for each in (gap.seeds, gap.left_out, gap.grid)),
                count(gap.n_points),
                word("yes" if gap.excludes_zero else "no"),
                word("yes" if gap.holds_theory else "no"),
            ]
            for gap in gaps(known)
        ],
        "Exponent of batched Scion less that of transported Scion, by the goals that were measured "
        "with both. The theory says 0.5 at every index. seeds: 95% of redraws of the fresh seeds, "
        "the same for both methods; one left out: without one of the goals; grid: as for the "
        "exponents. resolved: the hull of the three excludes 0 and holds 0.5.",
    )  # fmt: skip


def gain_table(known: Sequence[Progress]) -> Table:
    """Calls of the batched method over those of the transported one, goal by goal."""
    of: dict[tuple[str, float, int, float], dict[str, Point]] = {}
    for each in known:
        series = each.series
        if series.method.theory and not series.part.aspect:
            for point in each.points:
                key = (series.law, series.index, series.directions, -math.log2(point.eps))
                of.setdefault(key, {})[series.method.theory] = point
    rows = []
    for (law, index, directions, octaves), pair in sorted(of.items()):
        if len(pair) == 2 and all(math.isfinite(point.mean) for point in pair.values()):
            value, (low, high) = gain(pair["batched"], pair["transported"])
            cells = [word(f"{law} {index:g}", "head"), count(directions)]
            cells += [number(octaves, f"2^{-octaves:g}")]
            rows.append([*cells, number(value, f"{value:.2f}", f"{low:.2f} to {high:.2f}")])
    return Table(
        "Gain of transport",
        ("noise", "min(m, n)", "eps", "calls, batched over transported"),
        rows,
        "With 95% of redraws of the fresh seeds. The gain depends on the objective; the theory "
        "states the exponents alone.",
    )


def point_table(known: Sequence[Progress]) -> Table:
    """One row per point."""
    rows = []
    for each in known:
        for point in each.points:
            lr, alpha, batch = point.settings
            rows.append(
                [
                    word(each.series.part.name),
                    word(each.series.name, "head"),
                    number(-math.log2(point.eps), f"2^{math.log2(point.eps):g}"),
                    number(point.mean, f"{point.mean:.3g}"),
                    number(lr, f"2^{lr:g}"),
                    number(alpha, f"{2**alpha:g}" if math.isfinite(alpha) else DASH),
                    number(batch, f"2^{batch:g}"),
                    number(point.share_of_cap, f"{100 * point.share_of_cap:.0f}%"),
                    word(point.outcome, "" if point.outcome == "measured" else "flag"),
                ]
            )
    return Table(
        "Points",
        ("part", "series", "eps", "calls", "lr / unit", "1 - beta", "batch", "steps / cap",
         "outcome"),
        rows,
        "calls: mean over seeds that did not choose the setting.",
    )  # fmt: skip


def points_csv(known: Sequence[Progress]) -> str:
    """One row per point."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["part", "method", "law", "index", "directions", "columns", "eps", "calls", "log2_lr",
         "log2_alpha", "log2_batch", "share_of_cap", "outcome"]
    )  # fmt: skip
    for each in known:
        series = each.series
        for point in each.points:
            writer.writerow(
                [series.part.name, series.label, series.law, series.index, series.directions,
                 series.part.aspect * series.directions, point.eps, point.mean, *point.settings,
                 point.share_of_cap, point.outcome]
            )  # fmt: skip
    return file.getvalue()
