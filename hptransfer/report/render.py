"""Sections (a suite and its records) -> one HTML page that opens from disk."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from hptransfer.analysis import metrics, verdicts
from hptransfer.report import figures, tables
from hptransfer.suite.claim import Suite

RUNS_SHOWN = 300
NAMED = 20  # missing runs that are named on the page; metrics.json names all

CSV_COLUMNS = (
    "optimizer", "n", "stage", "width", "batch", "steps", "log2_lr", "lr", "seed", "status",
    "loss", "train_loss", "train_mean", "loss_init", "hp_point", "seconds", "flops",
    "peak_memory", "tokens", "device", "lanes", "threads", "hptransfer", "torch", "python", "git",
    "finished", "error", "cell", "key",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A resolved suite, its records (`store.frame()`), and what the caller knows besides.

    `n_expected`: runs of the finished suite. `missing`: a name for each that is not there.
    `commands`: lines that reproduce the section.
    """

    suite: Suite
    frame: pd.DataFrame
    n_expected: int | None = None
    missing: Sequence[str] = ()
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class _Study:
    """Everything computed once for a section."""

    rows: pd.DataFrame
    pairs: pd.DataFrame
    landscape: pd.DataFrame
    exponents: pd.DataFrame
    audit: pd.DataFrame
    control: tuple[bool, str]


def _study(section: Section) -> _Study:
    suite, rows = section.suite, metrics.select(section.suite, section.frame)
    pairs = verdicts.pairs(suite, rows)
    return _Study(
        rows=rows,
        pairs=pairs,
        landscape=metrics.landscape(suite, rows),
        exponents=metrics.exponent(suite, rows),
        audit=metrics.audit(suite, rows),
        control=verdicts.negative_control(suite, pairs),
    )


def _jsonable(value: Any) -> Any:
    """Plain JSON values; what was not measured and what is not finite are null."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_jsonable(row) for row in table.to_dict("records")]


def metrics_json(sections: Sequence[Section]) -> dict[str, Any]:
    """Everything the report says, for machines: {"schema": 1, "suites": [...]}."""
    return {"schema": 1, "suites": [_section_json(section) for section in _newest(sections)]}


def _section_json(section: Section) -> dict[str, Any]:
    study, suite = _study(section), section.suite
    pairs = _records(study.pairs)
    for row in pairs:
        row["hp"] = json.loads(row["hp"])
    return {
        "suite": suite.name,
        "claim": suite.claim,
        "axis": suite.axis,
        "proxy": suite.proxy,
        "targets": verdicts.targets(suite, study.rows),
        "thresholds": suite.thresholds.model_dump(),
        "runs": {
            "found": _found(study.rows),
            "expected": section.n_expected,
            "missing": list(section.missing),
        },
        "negative_control": {
            "label": suite.negative_control,
            "shown": study.control[0],
            "sentence": study.control[1],
        },
        "pairs": pairs,
        "optima": _records(study.landscape),
        "exponents": _records(study.exponents),
        "audit": _records(study.audit),
    }


def runs_table(suite: Suite, frame: pd.DataFrame) -> pd.DataFrame:
    """The records of the suite for runs.csv: flat columns, log2_lr exact, sorted."""
    return _flat(metrics.select(suite, frame))


def _flat(rows: pd.DataFrame) -> pd.DataFrame:
    versions = [env.get("versions", {}) for env in rows["env"]]
    made = rows.assign(
        lr=2.0 ** rows["log2_lr"].astype(float),
        git=[env.get("git") for env in rows["env"]],
        **{name: [v.get(name) for v in versions] for name in ("hptransfer", "torch", "python")},
    )
    made = made[list(CSV_COLUMNS)]
    return made.sort_values(["optimizer", "n", "stage", "log2_lr", "seed"], ignore_index=True)


def _newest(sections: Sequence[Section]) -> list[Section]:
    def last(section: Section) -> float:
        return float(section.frame["finished"].max()) if len(section.frame) else 0.0

    return sorted(sections, key=last, reverse=True)


def render(sections: Sequence[Section]) -> str:
    """One HTML page, a section a suite, newest records first; no external reference."""
    folder = files("hptransfer.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((folder / "template.html.j2").read_text(encoding="utf-8"))
    ordered = _newest(sections)
    return template.render(
        title=", ".join(section.suite.name for section in ordered),
        sections=[_context(section, i) for i, section in enumerate(ordered)],
        css=Markup((folder / "style.css").read_text(encoding="utf-8")),
        script=Markup((folder / "sort.js").read_text(encoding="utf-8")),
    )


def _figure(draw: Callable[[], Figure], salt: str) -> dict[str, Any]:
    figure = draw()
    return {"svg": Markup(figures.to_svg(figure, salt)), "alt": figure.get_label()}


def _found(rows: pd.DataFrame) -> int:
    """Finished runs of the suite; one that belongs to two labels counts once."""
    return int(rows.loc[rows["status"] != "failed", "key"].nunique())


def _completeness(section: Section, rows: pd.DataFrame) -> str:
    found = _found(rows)
    if section.n_expected is None:
        return f"{found} runs."
    text = f"{found}/{section.n_expected} runs."
    if section.missing:
        named = "; ".join(section.missing[:NAMED])
        rest = len(section.missing) - NAMED
        text += f" Missing: {named}" + (f"; and {rest} more." if rest > 0 else ".")
    return text


def _context(section: Section, index: int) -> dict[str, Any]:
    suite, study = section.suite, _study(section)
    rows = study.rows
    slug = f"s{index}-" + re.sub(r"\W+", "-", suite.name)
    flat = _flat(rows)
    failed = rows.loc[rows["status"] == "failed", "error"].value_counts()
    return {
        "slug": slug,
        "name": suite.name,
        "claim": suite.claim,
        "completeness": _completeness(section, rows),
        "others": len(section.frame) - rows["key"].nunique(),
        "control": {"ok": study.control[0], "text": study.control[1]},
        "axis": verdicts.axis_word(suite),
        "verdicts": _verdicts(study.pairs),
        "alignment": _figure(lambda: figures.alignment(suite, rows), f"{slug}-align"),
        "alignment_narrow": _figure(
            lambda: figures.alignment(suite, rows, columns=1), f"{slug}-align1"
        ),
        "drift": _figure(lambda: figures.drift(suite, rows), f"{slug}-drift"),
        "curves": _figure(lambda: figures.curves(suite, rows), f"{slug}-curves"),
        "transported": any("transport" in run.hp for run in suite.templates.values()),
        "transfer": tables.transfer(suite, study.pairs),
        "rule": verdicts.rule(suite),
        "landscape": tables.landscape(suite, study.landscape),
        "exponents": tables.exponents(study.exponents),
        "cost": tables.cost(suite, study.pairs),
        "shared": tables.shared(suite),
        "fairness": tables.fairness(suite, metrics.groups(rows)),
        "audit": tables.audit(suite, study.audit),
        "outcomes": tables.outcomes(suite, rows),
        "failures": [f"{count} × {error}" for error, count in failed.items()],
        "environment": tables.environment(rows),
        "commands": list(section.commands),
        "runs": tables.runs(flat, RUNS_SHOWN),
    }


def _verdicts(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """One an optimizer, that of its largest target; `nearer` holds those of the others.

    Each sentence once, its `label: verdict (indicative)` set apart from the rest.
    """
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for row in pairs.sort_values("n", ascending=False, kind="stable").itertuples():
        label, verdict = str(row.optimizer), str(row.verdict)
        remark, _, rest = str(row.sentence).removeprefix(f"{label}: {verdict}").partition(". ")
        told = {"verdict": verdict, "label": label + remark, "rest": rest, "n": row.n}
        made.setdefault(label, {}).setdefault(rest, told)
    found = [list(made[label].values()) for label in dict.fromkeys(pairs["optimizer"])]
    return [{**first, "nearer": nearer[::-1]} for first, *nearer in found]
