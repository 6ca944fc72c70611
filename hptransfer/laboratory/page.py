"""The page of a study, its points as CSV and its exponents as JSON."""

import csv
import io
import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from hptransfer.laboratory import figures
from hptransfer.laboratory.exponents import Fit, Name, fits, gain, growths
from hptransfer.laboratory.figures import Line, Panel
from hptransfer.laboratory.plan import Point, Progress
from hptransfer.laboratory.study import Study
from hptransfer.report.cells import DASH, Cell, Table, count, number, word
from hptransfer.report.render import environment
from hptransfer.report.svg import to_svg

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
    "rare large samples do not hurt. So the same method needs far fewer calls: the worst case "
    "needs skew. The best batch would be smaller yet than the limit of steps allows."
)


def page(study: Study, known: Sequence[Progress], command: str) -> str:
    """The HTML page of a study, without an external reference. `command`: makes its records."""
    env = environment()
    points = sum(len(each.points) for each in known)
    of = sum(len(each.series.part.log2_eps) for each in known)
    return env.get_template("study.html.j2").render(
        title=study.name,
        claim=study.claim,
        completeness=f"{points} of {of} points.",
        worst=WORST,
        exponents=exponent_table("Exponents in 1/eps", fits(known)),
        growth=exponent_table("Growth with min(m, n)", growths(known)),
        gains=gain_table(known),
        points=point_table(known),
        sections=[
            {"name": name, "note": note, "svg": Markup(to_svg(figure, f"{study.name}-{i}"))}
            for i, (name, note, figure) in enumerate(_figures(known))
        ],
        command=f"pip install hptransfer=={version('hptransfer')}\n{command}",
    )


def _figures(known: Sequence[Progress]) -> list[tuple[str, str, Any]]:
    """Name, note and figure of every part that has a point."""
    made = []
    notes = {"symmetric": SYMMETRIC, "methods": NO_RANKING}
    for part in dict.fromkeys(each.series.part.name for each in known):
        own = [each for each in known if each.series.part.name == part]
        if not any(each.points for each in own):
            continue
        if len(own[0].series.part.log2_eps) > 1:
            figure = figures.calls(
                _by_goal(own), "1/eps", lambda x: f"{2**x:.3g}", "Calls against 1/eps"
            )
        elif len(own[0].series.part.directions) > 1:
            figure = figures.calls(
                _by_directions(own), "min(m, n)", lambda x: f"{2**x:.0f}",
                "Calls against the number of directions",
            )  # fmt: skip
        else:
            continue
        made.append((part, notes.get(part, ""), figure))
    return made


def _by_goal(known: Sequence[Progress]) -> list[Panel]:
    panels: dict[str, list[Line]] = {}
    for each, (_, fit) in zip(known, fits(known), strict=True):
        x = [-math.log2(point.eps) for point in each.points]
        title = f"{each.series.law}, p = {each.series.index:g}"
        panels.setdefault(title, []).append(Line(each.series.label, x, each.points, fit))
    return _with_points(panels)


def _with_points(panels: dict[str, list[Line]]) -> list[Panel]:
    """The panels of which a line has a point."""
    return [
        Panel(title, lines)
        for title, lines in panels.items()
        if any(math.isfinite(point.mean) for line in lines for point in line.points)
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
        ("part", "method", "noise", "theory", "exponent", "seeds", "one left out", "grid",
         "points", "verdict"),
        [
            [
                *(word(text, "head" if i == 1 else "") for i, text in enumerate(name)),
                number(math.nan if fit.theory is None else fit.theory, f"{fit.theory:g}"
                       if fit.theory is not None else ""),
                number(fit.slope, f"{fit.slope:.2f}"),
                *(_range(each) for each in (fit.seeds, fit.left_out, fit.grid)),
                count(fit.n_points),
                _verdict(fit),
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
