"""The command line, the only package that prints or exits."""

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Generator
from typing import Annotated, TextIO

import typer

from hptransfer import __version__
from hptransfer.cli import analyze, batch, checking, judging, reading, tails, training
from hptransfer.cli.common import FailedError, app, err, out
from hptransfer.cli.options import flag
from hptransfer.errors import InputError
from hptransfer.records.damage import LeftOut

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
    try:
        with _notes():
            app(standalone_mode=True)
    except InputError as error:
        _die(error, 2)
    except FailedError as error:
        _die(error, 1)
    except BrokenPipeError:  # nobody reads stdout any more, for instance after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        gc.freeze()  # at exit Python need not search torch's objects for cycles


@contextlib.contextmanager
def _notes() -> Generator[None]:
    """Print a LeftOut warning once, as a note; other warnings stay as they are."""
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, LeftOut):
            others(message, category, filename, lineno, file, line)
        elif str(message) not in shown:  # two stores read the same file
            shown.add(str(message))
            err.print(f"note: {message}", markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.showwarning = show
        warnings.simplefilter("always", LeftOut)
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
