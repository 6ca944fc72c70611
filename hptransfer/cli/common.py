"""The common parts of the commands: the app, its consoles, and a suite from the options."""

import contextlib
import os
import sys
from collections.abc import Generator
from typing import IO, TYPE_CHECKING, Any

import typer
from rich.console import Console

from hptransfer.cli.options import RunOptions
from hptransfer.errors import InputError, suggest

if TYPE_CHECKING:
    import torch

    from hptransfer.suite.claim import SuiteTable
    from hptransfer.suite.resolved import Suite

DEFAULT_SUITE = "gpt_small"
ASK_ABOVE = 1800.0  # seconds; a longer job needs a confirmation

if not os.environ.get("COLUMNS", "80").strip("0"):
    del os.environ["COLUMNS"]  # no width at all, at which nothing would be shown


class _Console(Console):
    """A console that says in one line where stdout cannot be written."""

    def print(self, *objects: object, **options: Any) -> None:
        with _printing(self.file):
            super().print(*objects, **options)


@contextlib.contextmanager
def _printing(stream: IO[str]) -> Generator[None]:
    """Raises FailedError where stdout cannot be written, as on a full disk."""
    try:
        yield
    except BrokenPipeError:
        nobody_reads(stream)
    except OSError as error:
        nobody_reads(stream)
        if stream is sys.stdout:
            message = f"stdout: {error.strerror}"
            raise FailedError(message, "runs that are recorded are safe") from None


def nobody_reads(stream: IO[str]) -> None:
    """Send the rest to nowhere: a command has more to do than to print."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _go_on(self: Console) -> None:
    nobody_reads(self.file)


Console.on_broken_pipe = _go_on
"""What a console does after `| head`; the consoles that typer makes for `--help` do it too."""


def tell(text: str) -> None:
    """Print a document to stdout, in UTF-8 whatever the terminal reads."""
    text = text if text.endswith("\n") else text + "\n"
    binary = hasattr(sys.stdout, "buffer")
    with _printing(sys.stdout):
        typer.echo(text.encode(errors="surrogateescape") if binary else text, nl=False)


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Does the learning rate tuned on a small model still hold on a wide one?",
)
out = _Console(highlight=False, markup=False, emoji=False)
err = _Console(stderr=True, highlight=False, markup=False, emoji=False)


class FailedError(Exception):
    """The input was right, but a run or a check failed: one line and a hint, exit code 1."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def load(
    name: str,
    options: RunOptions,
    *,
    verify: bool | None = None,
) -> "SuiteTable":
    """The suite with the fields that the command line sets. Raises InputError."""
    # `--help` must not wait for pydantic.
    from hptransfer.suite.file import load_suite

    counts = {
        "steps": options.steps,
        "trials": options.trials,
        "seeds": options.seeds,
        "max_seeds": options.max_seeds,
        "verify": verify,
    }
    changes: dict[str, Any] = {key: value for key, value in counts.items() if value is not None}
    if data := options.data:
        is_path = os.sep in data or os.path.exists(data)  # Path.exists raises for long names
        changes["data"] = {"name": "file", "path": data} if is_path else {"name": data}
    suite = load_suite(name, changes)
    if options.trials:
        tables = {k: t.model_copy(update={"trials": None}) for k, t in suite.optimizers.items()}
        suite = suite.model_copy(update={"optimizers": tables})
    return suite


def only(suite: "SuiteTable", labels: list[str] | None) -> list[str]:
    """The labels that --optimizer names, or all of the suite. Raises InputError."""
    for label in labels or ():
        if label not in suite.optimizers:
            names = ", ".join(suite.optimizers)
            raise InputError(
                f"suite {suite.name!r} has no {label!r}",
                suggest(label, suite.optimizers) or f"its optimizers: {names}",
                option="optimizer",
            )
    return list(dict.fromkeys(labels or suite.optimizers))


def warn(suite: "SuiteTable", labels: list[str]) -> None:
    """Warn about transport of strength 0, and about an eps that muP's small gradients meet."""
    if large := suite.large_eps(labels):
        err.print(
            f"warning: {', '.join(large)}: eps does not shrink with the width, and gradients do "
            "under muP, so wide models see a larger one; hp = { eps = 1e-12 } is the default",
            soft_wrap=True,
        )
    if still := suite.untransported(labels):
        err.print(
            f"warning: {', '.join(still)}: at a constant lr the transport has strength 0, which is "
            'plain Scion; hp = { transport_schedule = "constant" } turns it on',
            soft_wrap=True,
        )


ENOUGH_TOKENS = 250_000
"""Tokens of a run from which the built-in text is learned beyond its bigrams at width 64."""


def note_short_runs(suite: "SuiteTable", train: int) -> None:
    """Say where runs of so many tokens are too short for their hidden matrices to matter."""
    if train < ENOUGH_TOKENS:
        err.print(
            f"note: {suite.name}: a run sees {train:,} tokens, of which a model mostly learns "
            f"which token follows which; from {ENOUGH_TOKENS:,} on its hidden matrices matter",
            soft_wrap=True,
        )


def warn_of_few_steps(suite: "Suite") -> None:
    """Warn where a batch or a number of steps gives short runs."""
    from hptransfer.analysis.batch_sentences import few_steps

    if line := few_steps(suite):
        err.print(f"warning: {suite.name}: {line}", soft_wrap=True)


def warn_of_precision(suite: "SuiteTable", device: "torch.device") -> None:
    """Warn where the suite's precision makes products slow on this device."""
    from hptransfer.geometry.processor import fast_bfloat16

    asked = ['precision = "bfloat16"'] if suite.precision == "bfloat16" else []
    mixed = [x for x, table in suite.optimizers.items() if table.hp.get("polar_dtype") == "mixed"]
    asked += [f'{", ".join(mixed)}: polar_dtype = "mixed"'] if mixed else []
    if asked and not fast_bfloat16(device):
        err.print(
            f"warning: {'; '.join(asked)}: this processor has no fast bfloat16 products; "
            '"float32" takes less time here, and is another run',
            soft_wrap=True,
        )


def confirm(seconds: float, yes: bool) -> None:
    """Ask before a job longer than ASK_ABOVE. Raises InputError where nobody can answer."""
    from hptransfer.cli.text import duration

    if seconds <= ASK_ABOVE or yes:
        return
    faster = "fewer --optimizer, a smaller width, --steps, or a GPU (--device cuda) would be faster"
    if not sys.stdin.isatty():
        raise InputError(f"this takes about {duration(seconds)}", f"add --yes; {faster}")
    err.print(f"This takes about {duration(seconds)}; {faster}.")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(130)
