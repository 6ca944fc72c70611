"""report, list, export and cite: commands that train nothing."""

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from hptransfer.cli.common import DEFAULT_SUITE, err, load, only, out, tell, warn
from hptransfer.cli.options import RunOptions, Source, SuiteName, takes
from hptransfer.errors import InputError, command, suggest


@takes("results", "as_json")
def report(
    suites: Annotated[
        list[str] | None, typer.Argument(help="Suites. Default: all with records, newest first.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--out", help="Path of the page. Default: in the results folder.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    *,
    options: RunOptions,
) -> None:
    """Write the report: one HTML page, metrics.json and runs.csv."""
    from hptransfer.cli.text import shown
    from hptransfer.laboratory import write as laboratory
    from hptransfer.records.store import stored_suites
    from hptransfer.report.write import write_report
    from hptransfer.transport import write as transport

    results = options.results
    names = [Path(s).stem if s.endswith(".toml") else s for s in suites or stored_suites(results)]
    names = list(dict.fromkeys(names))
    if not names:
        raise InputError(f"no records under {results}", "hptransfer run quickstart makes some")
    for name in names:
        if name in ("", "..") or Path(name).name != name:
            raise InputError(f"report: {name!r} is no suite's name", f"name a folder of {results}")
    alone = {
        name: write
        for name in names
        for is_stored, write in (
            (laboratory.is_stored, laboratory.write_report),
            (transport.is_stored, transport.write_report),
        )
        if is_stored(name, results)
    }
    if alone and len(names) > 1:
        first = next(iter(alone))
        raise InputError(f"{first} is a study, whose page stands alone", command("report", first))
    if alone:
        page, metrics = alone[names[0]](names[0], results, target)
    else:
        page, metrics = write_report(names, results, target)
    if options.as_json:
        tell(json.dumps(metrics))
    (err if options.as_json else out).print(shown(f"report: {page}"), soft_wrap=True)
    if show:
        webbrowser.open(page.resolve().as_uri())


@takes("as_json")
def list_(
    what: Annotated[
        str | None,
        typer.Argument(help="optimizers, models, datasets, suites or studies. Default: all."),
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """List optimizers, models, data sets, suites and studies."""
    from hptransfer.cli import tables

    kinds = {
        "optimizers": "optimizer", "models": "model", "datasets": "dataset",
        "suites": "suite", "studies": "study",
    }  # fmt: skip
    if what is not None and what not in kinds:
        raise InputError(f"list: got {what!r}", suggest(what, kinds) or ", ".join(kinds))
    keys = [what] if what else list(kinds)
    if options.as_json:
        from hptransfer.documents.answers import Names
        from hptransfer.documents.values import as_json

        listed = [tables.names(kind) if key in keys else None for key, kind in kinds.items()]
        optimizers, models, datasets, suites, studies = listed
        document = Names(optimizers, models, datasets, suites, studies)
        tell(json.dumps(as_json(document)))
        return
    for key in keys:
        out.print(tables.parts_table(kinds[key]))
        out.print()


@takes("optimizer", "steps", "data", "results")
def export(
    suite: SuiteName = DEFAULT_SUITE,
    to: Annotated[
        int | None,
        typer.Option("--to", min=1, help="Target (axis value). Default: the suite's largest."),
    ] = None,
    source: Source = None,
    python: Annotated[
        bool, typer.Option("--python", help="Print a script for one optimizer.")
    ] = False,
    target: Annotated[
        Path | None, typer.Option("--out", help="Path of the file. Default: stdout.")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Print the carried setting as TOML (lr, init, beta, decay per parameter) or as Python."""
    from hptransfer.cli.text import shown
    from hptransfer.export import settings, to_python, to_toml
    from hptransfer.records.store import Store

    table = load(suite, options)
    table = table.narrowed(proxy=source or table.proxy)
    labels = only(table, options.optimizer)
    warn(table, labels)
    if python and len(labels) != 1:
        raise InputError(
            "export --python: a script holds one optimizer",
            f"add --optimizer, one of {', '.join(labels)}",
        )
    n = to or max([*table.targets, table.proxy])
    carried = []
    frame = Store(options.results, table.name).frame()
    for label, setting in settings(table, frame, n, labels).items():
        if setting is None:
            raise InputError(
                f"export: {label} has not been tuned at {table.axis} {table.proxy}",
                command("tune", table.address, "--width", table.proxy, "--optimizer", label),
            )
        carried.append(setting)
    text = to_python(carried[0]) if python else to_toml(carried)
    if target is None:
        tell(text)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {target}: {error.strerror}", "name a writable file") from None
    err.print(shown(f"wrote {target}"), soft_wrap=True)


def cite(suite: SuiteName = DEFAULT_SUITE) -> None:
    """Print BibTeX of the methods in a suite."""
    from hptransfer.cite import bibtex

    tell(bibtex(load(suite, RunOptions())))
