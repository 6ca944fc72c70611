"""report and list: the commands that read what is there."""

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from hptransfer.cli.options import (
    DEFAULT_SUITE,
    Data,
    Json,
    Optimizers,
    Results,
    Steps,
    SuiteName,
    err,
    load,
    only,
    out,
    warn,
)
from hptransfer.errors import InputError, suggest


def report(
    suites: Annotated[
        list[str] | None, typer.Argument(help="Suites. Default: all with records, newest first.")
    ] = None,
    results: Results = Path("results"),
    target: Annotated[Path | None, typer.Option("--out", help="Write the page here.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page, metrics.json and runs.csv."""
    from hptransfer.cli.display import shown
    from hptransfer.records.store import stored_suites
    from hptransfer.report.write import write_report

    names = [Path(s).stem if s.endswith(".toml") else s for s in suites or stored_suites(results)]
    names = list(dict.fromkeys(names))
    if not names:
        raise InputError(f"no records under {results}", "hptransfer run quickstart makes some")
    for name in names:
        if name in ("", "..") or Path(name).name != name:
            raise InputError(f"report: {name!r} is no suite's name", f"name a folder of {results}")
    page, metrics = write_report(names, results, target)
    if as_json:
        typer.echo(json.dumps(metrics))
    (err if as_json else out).print(shown(f"report: {page}"), soft_wrap=True)
    if show:
        webbrowser.open(page.resolve().as_uri())


def list_(
    what: Annotated[
        str | None, typer.Argument(help="optimizers, models, datasets or suites.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Built-in optimizers, models, data sets and suites."""
    from hptransfer.cli import display

    kinds = {"optimizers": "optimizer", "models": "model", "datasets": "dataset", "suites": "suite"}
    if what is not None and what not in kinds:
        raise InputError(f"list: got {what!r}", suggest(what, kinds) or ", ".join(kinds))
    if as_json:
        typer.echo(
            json.dumps({key: display.names(kinds[key]) for key in ([what] if what else kinds)})
        )
        return
    for key in [what] if what else kinds:
        out.print(display.parts_table(kinds[key]))
        out.print()


def export(
    suite: SuiteName = DEFAULT_SUITE,
    optimizer: Optimizers = None,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="Target. Default: the suite's largest.")
    ] = None,
    source: Annotated[
        int | None, typer.Option("--from", min=1, help="Proxy. Default: the suite's.")
    ] = None,
    python: Annotated[
        bool, typer.Option("--python", help="A script that runs, of one optimizer.")
    ] = False,
    steps: Steps = None,
    data: Data = None,
    results: Results = Path("results"),
    target: Annotated[Path | None, typer.Option("--out", help="Write it here.")] = None,
) -> None:
    """The transferred setting as TOML (lr, init, beta, decay of every parameter) or Python."""
    from hptransfer.cli.display import shown
    from hptransfer.export import settings, to_python, to_toml
    from hptransfer.records.store import Store

    chosen = load(suite, steps=steps, trials=None, data=data)
    chosen = chosen.narrowed(proxy=source or chosen.proxy)
    labels = only(chosen, optimizer)
    warn(chosen, labels)
    if python and len(labels) != 1:
        raise InputError(
            "export --python: a script is of one optimizer",
            f"add --optimizer, one of {', '.join(labels)}",
        )
    n = to or max([*chosen.targets, chosen.proxy])
    found = settings(chosen, Store(results, chosen.name).frame(), n, labels)
    text = to_python(found[0]) if python else to_toml(found)
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
    from hptransfer.cli.display import bibtex

    typer.echo(bibtex(load(suite, steps=None, trials=None, data=None)))
