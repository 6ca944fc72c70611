"""A sweep that was made elsewhere -> its page, metrics.json, analysis.json and figure."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hptransfer.analysis.claims import suite_judgement
from hptransfer.analysis.quality import Finding
from hptransfer.documents import analysis as shapes
from hptransfer.documents.values import as_json
from hptransfer.errors import InputError
from hptransfer.report.alignment_figure import alignment
from hptransfer.report.checked import EXIT_CODES
from hptransfer.report.metrics import metrics_json, suite_metrics
from hptransfer.report.render import render
from hptransfer.report.section import Section
from hptransfer.report.svg import INK, to_svg


@dataclass(frozen=True, eq=False)
class Analysed:
    """A sweep as a section, where it came from, how it was read, and what weakens it."""

    section: Section
    sources: tuple[str, ...]
    taken: tuple[tuple[str, str], ...]
    rules: tuple[str, ...]
    findings: list[Finding]

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """That of the expectations; 0 without one."""
        judgement = suite_judgement(self.section.claims)
        return 0 if judgement is None else EXIT_CODES[judgement]


def analysis_json(found: Analysed) -> dict[str, Any]:
    """The document `Analysis` as JSON values."""
    return as_json(
        shapes.Analysis(
            sources=list(found.sources),
            taken=[shapes.Taken(*each) for each in found.taken],
            rules=list(found.rules),
            findings=[
                shapes.Weakness(each.kind, each.label, list(each.values), each.sentence)
                for each in found.findings
            ],
            unit=found.section.suite.unit,
            result=suite_metrics(found.section),
            judgement=suite_judgement(found.section.claims),
            exit_code=found.exit_code,
        )
    )


def write_analysis(found: Analysed, folder: Path) -> Path:
    """Write all files into the folder; the page. Raises InputError where it cannot be written.

    A folder with the records of a suite is refused: its report has files of the same names.
    """
    section = found.section
    if (folder / "suite.json").exists():
        raise InputError(
            f"{folder}: holds the records of a suite",
            "name another folder, or the sweep otherwise",
            cures=("out", "name"),
        )
    texts = {
        "report.html": render([section]),
        "metrics.json": json.dumps(metrics_json([section]), indent=1) + "\n",
        "analysis.json": json.dumps(analysis_json(found), indent=1) + "\n",
        "alignment.svg": to_svg(
            alignment(section.suite, section.rows), section.suite.name, ink=INK
        ),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror}", "name a writable folder", option="out"
        ) from None
    return folder / "report.html"
