"""analyze: a verdict on a sweep that was made elsewhere, read from a table of its runs."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hptransfer.cli.common import err, out, tell
from hptransfer.cli.options import RunOptions, takes
from hptransfer.errors import InputError

if TYPE_CHECKING:
    from hptransfer.foreign.rows import Reading
    from hptransfer.foreign.sweep import Sweep
    from hptransfer.foreign.table import Table
    from hptransfer.report.analysis import Analysed
    from hptransfer.suite.claim import Expectation


Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="CSV, TSV, JSON lines or Parquet, - for standard input, or an Optuna storage URL.",
    ),
]
Lr = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the learning rate.")]
Loss = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the final loss.")]
AxisColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of the width, depth, batch size and so on."),
]
Group = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="Column of the optimizer or method. Repeatable."),
]
Seed = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the seed.")]
Status = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column that says how a run ended.")
]
Hold = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN=VALUE", help="Only runs with this value. Repeatable."),
]
Upward = Annotated[bool, typer.Option("--higher-is-better", help="The loss column is an accuracy.")]
LrScale = Annotated[
    str | None,
    typer.Option(metavar="SCALE", help="linear, log2, log10 or ln. Default: by the name."),
]
LossInit = Annotated[
    float | None, typer.Option(help="Loss before the first step; a divergence counts as it.")
]
Proxy = Annotated[
    int | None,
    typer.Option("--proxy", "--from", min=1, help="Axis value of the search. Default: least."),
]
To = Annotated[
    list[int] | None, typer.Option(min=1, help="Target. Repeatable. Default: all others.")
]
Expect = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL=VERDICT", help="drifts or transfers, as in a suite. Repeatable."),
]
Control = Annotated[
    str | None, typer.Option(metavar="LABEL", help="The negative control, which must drift.")
]
Tol = Annotated[
    float | None, typer.Option(help="A regret shown to be above this drifts. Default: 0.01.")
]
Limit = Annotated[
    float | None, typer.Option(help="One shown to be below this transfers. Default: 0.02.")
]
Study = Annotated[str | None, typer.Option(help="Name of the Optuna study.")]
Name = Annotated[str | None, typer.Option(help="Name of the sweep. Default: that of the file.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Default: NAME in the results folder."),
]


@takes("results", "as_json")
def analyze(
    files: Files,
    lr: Lr = None,
    loss: Loss = None,
    axis: AxisColumn = None,
    group: Group = None,
    seed: Seed = None,
    status: Status = None,
    hold: Hold = None,
    higher_is_better: Upward = False,
    lr_scale: LrScale = None,
    loss_init: LossInit = None,
    proxy: Proxy = None,
    to: To = None,
    expect: Expect = None,
    control: Control = None,
    tol: Tol = None,
    limit: Limit = None,
    study: Study = None,
    name: Name = None,
    target: Out = None,
    *,
    options: RunOptions,
) -> None:
    """Judge a learning-rate sweep that was made elsewhere, from a table with one row per run.

    Columns are found by their names, and what was taken for what is printed first.

    Exit code: 0, or as check has it where a verdict is expected: 1 refuted, 3 undecided.
    """
    from hptransfer.foreign.names import Asked
    from hptransfer.foreign.rows import reading
    from hptransfer.foreign.sweep import sweep

    held = _pairs(hold or (), "hold", "COLUMN=VALUE")
    columns = {"lr": lr, "loss": loss, "axis": axis, "seed": seed, "status": status}
    more = {"higher_is_better": higher_is_better, "lr_scale": lr_scale, "loss_init": loss_init}
    asked = Asked(group=tuple(group or ()), hold=held, **columns, **more)
    limits, expected = _thresholds(tol, limit), _expectations(expect or ())
    called, table = _name(name, files, study), _table(files, study)
    read = reading(table, asked, called)
    question = sweep(
        read, proxy=proxy, targets=to or (), thresholds=limits, expect=expected, control=control
    )
    _tell(_analysed(table, read, question), target or options.results / called, options)


def _tell(found: "Analysed", folder: Path, options: RunOptions) -> None:
    """Print and write what was found. The exit code is that of the expectations."""
    from hptransfer.cli.text import shown
    from hptransfer.report.analysis import analysis_json, write_analysis

    if options.as_json:
        tell(json.dumps(analysis_json(found)))
    else:
        _print(found)
    page = write_analysis(found, folder)
    (err if options.as_json else out).print(shown(f"report: {page}"), soft_wrap=True)
    raise typer.Exit(found.exit_code)


def _name(name: str | None, files: Sequence[str], study: str | None) -> str:
    """The name of the sweep, which is that of its folder. Raises InputError for no such name."""
    from hptransfer.foreign.read import STDIN, is_storage

    first = files[0]
    plain = "sweep" if first == STDIN else Path(first).stem
    if is_storage(first):
        plain = study or "study"
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in plain).strip(".-")
    if name is not None and (not name.strip() or Path(name).name != name or name in (".", "..")):
        raise InputError(f"got {name!r}, needs the name of a folder", "my_sweep", option="name")
    return name or plain or "sweep"


def _table(files: Sequence[str], study: str | None) -> "Table":
    from hptransfer.foreign.read import STDIN, is_storage, read, trials
    from hptransfer.foreign.table import joined

    tables = []
    for each in files:
        if is_storage(each):
            from hptransfer.search.database import opened

            with opened(each) as (storage, place):
                tables.append(trials(storage, place, study))
        else:
            tables.append(_stdin() if each == STDIN else read(each))
    if study is not None and not any(map(is_storage, files)):
        raise InputError("no Optuna storage is given", "sqlite:///studies.db", option="study")
    return joined(tables)


def _stdin() -> "Table":
    from hptransfer.foreign.read import of_bytes

    return of_bytes(sys.stdin.buffer.read(), "standard input")


def _pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """`name=value` texts. Raises InputError for another form, and for a name twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (sign and name and value):
            raise InputError(f"got {text!r}, needs {form}", option=option)
        if name in found:
            raise InputError(f"{name} is given twice", "give it once", option=option)
        found[name] = value
    return found


def _expectations(texts: Sequence[str]) -> "dict[str, Expectation]":
    found: dict[str, Expectation] = {}
    for label, verdict in _pairs(texts, "expect", "LABEL=drifts or LABEL=transfers").items():
        if verdict == "drifts" or verdict == "transfers":
            found[label] = verdict
        else:
            raise InputError(
                f"{label}: got {verdict!r}, needs drifts or transfers",
                f"--expect {label}=transfers",
                option="expect",
            )
    return found


def _thresholds(tol: float | None, limit: float | None) -> Any:
    """The limits of the verdict. Raises InputError for a value outside its range."""
    from pydantic import ValidationError

    from hptransfer.suite.tables import Thresholds

    given = {key: value for key, value in (("tol", tol), ("limit", limit)) if value is not None}
    try:
        return Thresholds(**given)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        message = f"got {first['input']}, {first['msg'].lower()}"
        raise InputError(message, "0.01", option=field) from None


def _analysed(table: "Table", read: "Reading", question: "Sweep") -> "Analysed":
    """The sweep with its rows, those of other axis values left out, and what weakens it."""
    import pandas as pd

    from hptransfer.analysis.quality import findings
    from hptransfer.report.analysis import Analysed
    from hptransfer.report.section import Section

    rows = read.rows[read.rows["n"].isin(question.axis_values)].reset_index(drop=True)
    rows["source"] = pd.Categorical(_once(table.sources)).take(rows["source"].to_numpy(int))
    weak = findings(question, rows, read.columns.together)
    rules = list(read.notes)
    if len(rows) < len(read.rows):
        rules.append(f"{len(read.rows) - len(rows)} run(s) at other values of {question.axis}")
    section = Section(
        question,
        rows,
        taken=[*read.taken, *(("rule", rule) for rule in rules)],
        findings=[each.sentence for each in weak],
    )
    return Analysed(section, table.sources, read.taken, tuple(rules), weak)


def _once(names: Sequence[str]) -> list[str]:
    """The names; one that is there twice gets a number."""
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _print(found: "Analysed") -> None:
    """What was taken for what, the rules, the verdicts, what weakens them, and the judgement."""
    from hptransfer.analysis.claims import claim_sentence
    from hptransfer.analysis.sentences import sentence
    from hptransfer.cli.text import shown

    section = found.section
    width = max(len(what) for what, _ in found.taken)
    rows = len(section.rows)
    lines = [f"{', '.join(found.sources)}: {rows} run{'s' if rows != 1 else ''}"]
    lines += [f"  {what:{width}}  {told}" for what, told in found.taken]
    lines += [f"  {'rule':{width}}  {rule}" for rule in found.rules]
    lines += ["", section.suite.claim]
    lines += [sentence(section.suite, each) for each in section.transfers]
    if found.findings:
        lines += ["", "What weakens this sweep:"]
        lines += [f"- {each.sentence}" for each in found.findings]
    if section.suite.negative_control:
        lines += ["", section.control.sentence]
    if judged := claim_sentence(section.suite, section.claims):
        lines += ["", judged]
    for line in lines:
        out.print(shown(line), soft_wrap=True)
