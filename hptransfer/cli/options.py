"""What the commands share: the app, its options, and how a suite is taken from them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hptransfer.errors import InputError, suggest

if TYPE_CHECKING:
    from hptransfer.suite.claim import SuiteTable

DEFAULT_SUITE = "gpt_width"
ASK_ABOVE = 1800.0  # seconds

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Does the learning rate tuned on a small model still hold on a wide one?",
)

SuiteName = Annotated[str, typer.Argument(help="A built-in suite or a path to a .toml file.")]
Optimizers = Annotated[
    list[str] | None, typer.Option("--optimizer", help="Only this label. Repeatable.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps, instead of the suite's.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Learning rates a search may try.")]
Data = Annotated[str | None, typer.Option(help="A data set's name, or a path to a file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes at once. Default: measured; one on a GPU.")
]
Lanes = Annotated[int | None, typer.Option(min=1, help="Runs trained as one. Default: measured.")]
Results = Annotated[Path, typer.Option(help="Where the records lie.")]
Storage = Annotated[str | None, typer.Option(help="Optuna storage URL. Default: a journal file.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a long job.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def load(
    name: str, *, steps: int | None, trials: int | None, data: str | None, **changes: Any
) -> "SuiteTable":
    """The suite with what the command line overrides."""
    # pydantic: a fifth of a second that --help need not take
    from hptransfer.suite.file import load_suite

    overrides = {k: v for k, v in {**changes, "steps": steps, "trials": trials}.items() if v}
    if data:
        is_path = os.sep in data or os.path.exists(data)  # a name may be too long for Path.exists
        overrides["data"] = {"name": "file", "path": data} if is_path else {"name": data}
    if "verify" in changes:
        overrides["verify"] = changes["verify"]
    suite = load_suite(name, overrides)
    if trials:
        tables = {k: t.model_copy(update={"trials": None}) for k, t in suite.optimizers.items()}
        suite = suite.model_copy(update={"optimizers": tables})
    return suite


def only(suite: "SuiteTable", labels: list[str] | None) -> list[str]:
    """The labels that --optimizer names, each once, or all. Raises InputError."""
    for label in labels or ():
        if label not in suite.optimizers:
            known = ", ".join(suite.optimizers)
            raise InputError(
                f"--optimizer: suite {suite.name!r} has no {label!r}",
                suggest(label, suite.optimizers) or f"its optimizers: {known}",
            )
    return list(dict.fromkeys(labels or suite.optimizers))


def warn(suite: "SuiteTable", labels: list[str]) -> None:
    """Say what a suite's optimizers do that nobody may have meant."""
    if still := suite.untransported(labels):
        err.print(
            f"warning: {', '.join(still)}: at a constant lr the transport has strength 0, which is "
            'plain Scion; hp = { transport_schedule = "constant" } turns it on',
            soft_wrap=True,
        )


def confirm(seconds: float, yes: bool) -> None:
    """Ask before a job of more than half an hour. Raises InputError where nobody can answer."""
    from hptransfer.cli.display import duration

    if seconds <= ASK_ABOVE or yes:
        return
    faster = "fewer --optimizer, a smaller width, --steps, or a GPU (--device cuda) would be faster"
    if not sys.stdin.isatty():
        raise InputError(f"this takes about {duration(seconds)}", f"add --yes; {faster}")
    err.print(f"This takes about {duration(seconds)}; {faster}.")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(130)


class FailedError(Exception):
    """Runs that failed although the input was right."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint
