"""Manifest and records of suites -> report.html, metrics.json and runs.csv, through the store."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from hptransfer.analysis.metrics import select
from hptransfer.errors import InputError
from hptransfer.records.store import Store
from hptransfer.report.figures import INK, alignment, to_svg
from hptransfer.report.render import Section, metrics_json, render, runs_table
from hptransfer.search.plan import forecast
from hptransfer.suite.claim import Suite

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def section(suite: Suite, frame: pd.DataFrame, results: Path) -> Section:
    """What the report needs of a suite: its records, what is missing, how to reproduce it."""
    missing = forecast(suite, frame)
    named = suite.names(missing)
    rows = select(suite, frame)
    known = rows.loc[rows["status"] != "failed", "key"].nunique()
    return Section(
        suite,
        frame,
        n_expected=known + len(missing),
        missing=[
            f"{named[s.key][0]} {suite.axis} {named[s.key][1]} 2^{s.log2_lr:g} seed {s.seed}"
            for s in missing
        ],
        commands=_commands(suite, results),
    )


def _commands(suite: Suite, results: Path) -> list[str]:
    """Lines that reproduce a suite's records."""
    shared = [suite.address, "--steps", str(suite.steps), *_option(suite, "trials", "--trials")]
    if suite.data["name"] == "file":
        shared += ["--data", suite.data["path"]]
    else:
        shared += _option(suite, "data", "--data")
    seeds, fresh = (_option(suite, key, "--seeds") for key in ("seeds", "fresh_seeds"))
    lines = [["tune", *shared, "--width", str(suite.proxy), *seeds]]
    more = [*(["--verify"] if suite.verify else []), *fresh]
    for n in suite.targets:
        lines.append(["transfer", *shared, "--from", str(suite.proxy), "--to", str(n), *more])
    lines.append(["report", suite.name])
    place = [] if results == Path("results") else ["--results", str(results)]
    return [shlex.join(["hptransfer", *line, *place]) for line in lines]


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each text that a spreadsheet would run as a formula."""

    def cell(value: object) -> object:
        formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        return f"'{value}" if formula and not _NUMBER.fullmatch(str(value)) else value

    texts = [name for name in table.columns if not is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(cell) for name in texts})


def _option(suite: Suite, key: str, option: str) -> list[str]:
    return [option, str(suite.changed[key])] if key in suite.changed else []


def write_report(
    names: list[str], results: Path, target: Path | None
) -> tuple[Path, dict[str, Any]]:
    """Render suites from their manifests and records; (page, metrics)."""
    sections: list[Section] = []
    for name in names:
        store = Store(results, name)
        suite = store.read_manifest()
        if suite is None:
            raise InputError(
                f"no records of suite {name!r} under {results}", f"hptransfer run {name} makes them"
            )
        if not suite.templates:
            raise InputError(
                f"{store.folder / 'suite.json'}: holds no resolved suite",
                "delete that file; the next run writes it again",
            )
        sections.append(section(suite, store.frame(), results))
    page = render(sections)
    metrics = metrics_json(sections)
    first = Store(results, names[0]) if len(names) == 1 else Store(results, "")
    first.write_text("metrics.json", json.dumps(metrics, indent=1) + "\n")
    for each in sections:
        table = runs_table(each.suite, each.frame)
        own = Store(results, each.suite.name)
        own.write_text("runs.csv", _as_text(table).to_csv(index=False))
        figure = alignment(each.suite, select(each.suite, each.frame))
        own.write_text("alignment.svg", to_svg(figure, each.suite.name, ink=INK))
    if target is None:
        first.write_text("report.html", page)
        target = first.folder / "report.html"
    else:
        try:
            target.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{target}: {error.strerror}", "name a writable file", cures=("out",)
            ) from None
    return target, metrics
