"""Sections (a suite and its records) -> one HTML page that opens from disk."""

import functools
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from hptransfer.analysis import former
from hptransfer.analysis.claims import claim_sentence, suite_judgement
from hptransfer.analysis.sentences import axis_name, references, rule, sentence
from hptransfer.documents.tails import TailRun
from hptransfer.report import (
    batch_tables,
    result_tables,
    runs_tables,
    settings_tables,
    tails_tables,
)
from hptransfer.report.alignment_figure import alignment
from hptransfer.report.batch_figure import losses
from hptransfer.report.curves_figure import curves
from hptransfer.report.drift_figure import drift
from hptransfer.report.hill_figure import hill_plot
from hptransfer.report.runs_csv import flat
from hptransfer.report.section import Section, newest_first
from hptransfer.report.svg import to_svg

RUNS_SHOWN = 300
FORMER = "rule of 0.1"
NAMED = 20  # missing runs that are named on the page; metrics.json names all


def render(sections: Sequence[Section]) -> str:
    """One HTML page, one section per suite, newest records first; no external reference."""
    template = environment().get_template("template.html.j2")
    ordered = newest_first(sections)
    return template.render(
        title=", ".join(section.suite.name for section in ordered),
        sections=[_context(section, i) for i, section in enumerate(ordered)],
    )


def environment() -> Environment:
    """The templates of pages, with the style and the script that every page holds."""
    folder = files("hptransfer.report")

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    made = Environment(
        loader=FunctionLoader(read), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.globals |= {"css": Markup(read("style.css")), "script": Markup(read("sort.js"))}
    return made


def _figure(draw: Callable[[], Figure], salt: str) -> dict[str, Any]:
    figure = draw()
    return {"svg": Markup(to_svg(figure, salt)), "alt": figure.get_label()}


def _completeness(section: Section) -> str:
    if section.uncounted:
        return f"{section.n_finished} runs. Missing runs are not counted: {section.uncounted}."
    if section.n_expected is None:
        return f"{section.n_finished} runs."
    text = f"{section.n_finished}/{section.n_expected} runs."
    if section.missing:
        named = "; ".join(section.missing[:NAMED])
        rest = len(section.missing) - NAMED
        text += f" Missing: {named}" + (f"; and {rest} more." if rest > 0 else ".")
    return text


def _context(section: Section, index: int) -> dict[str, Any]:
    suite, own = section.suite, section.recorded
    slug = f"s{index}-" + re.sub(r"\W+", "-", suite.name)
    return {
        "slug": slug,
        "name": suite.name + (f", {FORMER}" if former.applies(suite) else ""),
        "claim": suite.claim,
        "judgement": suite_judgement(section.claims),
        "judged": claim_sentence(suite, section.claims),
        "completeness": _completeness(section),
        "others": len(section.frame) - section.all_rows["key"].nunique() if own else 0,
        "control": {"ok": section.control.shown, "text": section.control.sentence},
        "axis": axis_name(suite),
        "references": references(suite),
        "verdicts": _verdicts(section),
        "kind": suite.kind,
        "taken": list(section.taken),
        "findings": list(section.findings),
        "transported": own and any("transport" in run.hp for run in own.templates.values()),
        "rule": rule(suite),
        "former": former.applies(suite),
        "shared": settings_tables.shared(own) if own else [],
        "commands": list(section.commands),
        "batches": _batches(section, slug),
        "tails": _tails(section, slug),
        "tails_fault": section.tails_fault,
        **_figures(section, slug),
        **_tables(section),
    }


def _figures(section: Section, slug: str) -> dict[str, Any]:
    suite, rows, own = section.suite, section.rows, section.recorded
    return {
        "alignment": _figure(lambda: alignment(suite, rows), f"{slug}-align"),
        "alignment_narrow": _figure(lambda: alignment(suite, rows, columns=1), f"{slug}-align1"),
        "drift": _figure(lambda: drift(suite, rows), f"{slug}-drift"),
        "curves": _figure(lambda: curves(own, rows), f"{slug}-curves") if own else None,
    }


def _batches(section: Section, slug: str) -> dict[str, Any]:
    """Tables and figure of the comparison of batch sizes or of steps; {} without one."""
    suite, table = section.compared, section.tuned
    if suite is None:
        return {}
    found = section.critical_batches
    return {
        "figure": _figure(lambda: losses(suite, table), f"{slug}-batch"),
        "tables": [
            batch_tables.batches(suite, table),
            *([batch_tables.laws(suite, section.laws)] if section.laws else []),
            *([batch_tables.critical(suite, found)] if found else []),
        ],
    }


def _tails(section: Section, slug: str) -> list[dict[str, Any]]:
    """Per run whose gradient noise was measured: what was found, its tables and its figures."""
    suite = section.recorded
    if suite is None or section.tails is None:
        return []
    return [
        {
            "title": tails_tables.title(suite, run),
            "remark": tails_tables.remark(suite, run),
            "sentences": run.sentences,
            "parts": [
                _hill(run, batch, f"{slug}-tails{i}-{batch}") for batch in tails_tables.batches(run)
            ],
            "estimates": tails_tables.estimates(run),
        }
        for i, run in enumerate(section.tails.runs)
    ]


def _hill(run: TailRun, batch: int, slug: str) -> dict[str, Any]:
    """Table and Hill plots for one number of examples per gradient."""
    steps = tails_tables.moments(run, batch) if run.curve_k else []
    return {
        "table": tails_tables.overview(run, batch),
        "plots": [
            _figure(functools.partial(hill_plot, run, batch, step), f"{slug}-{step}")
            for step in steps
        ],
    }


def _tables(section: Section) -> dict[str, Any]:
    suite, every = section.suite, section.all_rows
    return {
        "transfer": result_tables.transfer(suite, section.transfers),
        "landscape": result_tables.landscape(suite, section.landscapes),
        "exponents": result_tables.exponents(section.exponents),
        "points": result_tables.points(section.points),
        "differences": result_tables.differences(suite, section.differences),
        "outcomes": runs_tables.outcomes(suite, every),
        "runs": runs_tables.runs(flat(every) if section.recorded else every, RUNS_SHOWN),
        **_recorded(section),
    }


def _recorded(section: Section) -> dict[str, Any]:
    """What only records tell; None in each place for a sweep that was made elsewhere."""
    suite, every = section.recorded, section.all_rows
    if suite is None:
        return dict.fromkeys(("cost", "audit", "fairness", "failures", "environment"))
    failed = every.loc[every["status"] == "failed", "error"].value_counts()
    return {
        "cost": result_tables.cost(suite, section.transfers),
        "audit": result_tables.audit(suite, section.audits),
        "fairness": settings_tables.fairness(suite, section.rows),
        "failures": [f"{count} × {error}" for error, count in failed.items()],
        "environment": runs_tables.environment(every),
    }


def _verdicts(section: Section) -> list[dict[str, Any]]:
    """One per optimizer, that of its largest target; `nearer` holds those of the others.

    Each sentence once, its `label: verdict (indicative)` set apart from the rest.
    """
    by_label: dict[str, dict[str, dict[str, Any]]] = {}
    for each in sorted(section.transfers, key=lambda each: each.n, reverse=True):
        label, verdict = each.optimizer, each.verdict
        text = sentence(section.suite, each).removeprefix(f"{label}: {verdict}")
        remark, _, rest = text.partition(". ")
        told = {"verdict": verdict, "label": label + remark, "rest": rest, "n": each.n}
        by_label.setdefault(label, {}).setdefault(rest, told)
    labels = dict.fromkeys(each.optimizer for each in section.transfers)
    verdicts = [list(by_label[label].values()) for label in labels]
    return [{**first, "nearer": nearer[::-1]} for first, *nearer in verdicts]
