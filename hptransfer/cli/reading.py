"""report, list, export and cite: the commands that train nothing."""

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from hptransfer.cli.common import DEFAULT_SUITE, err, load, only, out, warn
from hptransfer.cli.options import RunOptions, Source, SuiteName, takes
from hptransfer.errors import InputError, suggest


@takes("results", "as_json")
def report(
    suites: Annotated[
        list[str] | None, typer.Argument(help="Suites. Default: all with records, newest first.")
    ] = None,
    target: Annotated[Path | None, typer.Option("--out", help="Write the page here.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    *,
    options: RunOptions,
) -> None:
    """One self-contained HTML page, metrics.json and runs.csv."""
    from hptransfer.cli.text import shown
    from hptransfer.records.store import stored_suites
    from hptransfer.report.write import write_report

    results = options.results
    names = [Path(s).stem if s.endswith(".toml") else s for s in suites or stored_suites(results)]
    names = list(dict.fromkeys(names))
    if not names:
        raise InputError(f"no records under {results}", "hptransfer run quickstart makes some")
    for name in names:
        if name in ("", "..") or Path(name).name != name:
            raise InputError(f"report: {name!r} is no suite's name", f"name a folder of {results}")
    page, metrics = write_report(names, results, target)
    if options.as_json:
        typer.echo(json.dumps(metrics))
    (err if options.as_json else out).print(shown(f"report: {page}"), soft_wrap=True)
    if show:
        webbrowser.open(page.resolve().as_uri())


@takes("as_json")
def list_(
    what: Annotated[
        str | None, typer.Argument(help="optimizers, models, datasets or suites.")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Built-in optimizers, models, data sets and suites."""
    from hptransfer.cli import tables

    kinds = {"optimizers": "optimizer", "models": "model", "datasets": "dataset", "suites": "suite"}
    if what is not None and what not in kinds:
        raise InputError(f"list: got {what!r}", suggest(what, kinds) or ", ".join(kinds))
    chosen = [what] if what else list(kinds)
    if options.as_json:
        typer.echo(json.dumps({key: tables.names(kinds[key]) for key in chosen}))
        return
    for key in chosen:
        out.print(tables.parts_table(kinds[key]))
        out.print()


@takes("optimizer", "steps", "data", "results")
def export(
    suite: SuiteName = DEFAULT_SUITE,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="Target. Default: the suite's largest.")
    ] = None,
    source: Source = None,
    python: Annotated[
        bool, typer.Option("--python", help="A script that runs, of one optimizer.")
    ] = False,
    target: Annotated[Path | None, typer.Option("--out", help="Write it here.")] = None,
    *,
    options: RunOptions,
) -> None:
    """The transferred setting as TOML (lr, init, beta, decay of every parameter) or Python."""
    from hptransfer.cli.text import shown
    from hptransfer.export import settings, to_python, to_toml
    from hptransfer.records.store import Store

    chosen = load(suite, options)
    chosen = chosen.narrowed(proxy=source or chosen.proxy)
    labels = only(chosen, options.optimizer)
    warn(chosen, labels)
    if python and len(labels) != 1:
        raise InputError(
            "export --python: a script is of one optimizer",
            f"add --optimizer, one of {', '.join(labels)}",
        )
    n = to or max([*chosen.targets, chosen.proxy])
    tuned = []
    frame = Store(options.results, chosen.name).frame()
    for label, setting in settings(chosen, frame, n, labels).items():
        if setting is None:
            raise InputError(
                f"export: {label} has not been tuned at {chosen.axis} {chosen.proxy}",
                f"hptransfer tune {chosen.address} --width {chosen.proxy} --optimizer {label}",
            )
        tuned.append(setting)
    text = to_python(tuned[0]) if python else to_toml(tuned)
    if target is None:
        typer.echo(text, nl=False)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {target}: {error.strerror}", "name a writable file") from None
    err.print(shown(f"wrote {target}"), soft_wrap=True)


def cite(suite: SuiteName = DEFAULT_SUITE) -> None:
    """BibTeX of the methods that a suite uses."""
    from hptransfer.cite import bibtex

    typer.echo(bibtex(load(suite, RunOptions())))
