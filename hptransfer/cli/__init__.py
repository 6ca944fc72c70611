"""The command line, the only package that prints or exits."""

import contextlib
import gc
import io
import sys
import warnings
from collections.abc import Generator
from typing import Annotated, TextIO

import typer

from hptransfer import __version__
from hptransfer.cli import analyze, batch, checking, judging, reading, tails, training
from hptransfer.cli.common import FailedError, app, err, out
from hptransfer.cli.options import flag
from hptransfer.errors import InputError, Note

for _command in (
    training.tune,
    training.transfer,
    training.run,
    training.plan,
    batch.batch,
    analyze.analyze,
    judging.check,
    judging.compare,
    reading.report,
    reading.export,
    reading.cite,
    checking.coords,
    checking.validate,
    tails.tails,
):
    app.command()(_command)
app.command("list")(reading.list_)


def _version(value: bool) -> None:
    if value:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line. For wrong input it prints one line and a hint, and exits with 2."""
    _write_in_any_encoding()
    try:
        with _notes():
            app(standalone_mode=True)
    except InputError as error:
        _die(error, 2)
    except FailedError as error:
        _die(error, 1)
    finally:
        gc.freeze()  # at exit Python need not search torch's objects for cycles


def _write_in_any_encoding() -> None:
    """Text for a terminal that cannot say all of it must not end a command."""
    from hptransfer.cli import text

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=text.ERRORS)


@contextlib.contextmanager
def _notes() -> Generator[None]:
    """Print each Note once; other warnings stay as they are."""
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, Note):
            others(message, category, filename, lineno, file, line)
        elif str(message) not in shown:  # two stores read the same file
            shown.add(str(message))
            err.print(f"note: {message}", markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.showwarning = show
        warnings.simplefilter("always", Note)
        yield


def _die(error: InputError | FailedError, code: int) -> None:
    from hptransfer.cli.text import shown

    message, hint = str(error), error.hint
    if isinstance(error, InputError):
        if error.option:
            message = flag(error.option) + message.removeprefix(error.option)
        if error.cures:
            hint += f" ({', '.join(map(flag, error.cures))})"
    err.print(shown(f"error: {message}"), soft_wrap=True)
    if hint:
        err.print()
        err.print(shown(f"hint: {hint}"), soft_wrap=True)
    sys.exit(code)
