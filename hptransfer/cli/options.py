"""The options of the commands: one field of RunOptions declares each of them."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

SuiteName = Annotated[str, typer.Argument(help="A built-in suite or a path to a .toml file.")]
Source = Annotated[
    int | None, typer.Option("--from", min=1, help="Proxy (axis value). Default: the suite's.")
]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options that commands share. The type of a field declares its option."""

    optimizer: Annotated[
        list[str] | None,
        typer.Option("--optimizer", help="Only this optimizer (label). Repeatable."),
    ] = None
    trials: Annotated[int | None, typer.Option(min=1, help="Most learning rates per search.")] = (
        None
    )
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds near each optimum. Default: the suite's.")
    ] = None
    max_seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Most seeds of an undecided verdict. Default: the suite's."),
    ] = None
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps per run. Default: the suite's.")
    ] = None
    data: Annotated[
        str | None, typer.Option(help="Name of a data set or path of a file. Default: the suite's.")
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes. Default: measured; one on a GPU."),
    ] = None
    lanes: Annotated[
        int | None,
        typer.Option(min=1, help="Runs that one process trains together. Default: measured."),
    ] = None
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results")
    storage: Annotated[
        str | None, typer.Option(help="URL of the Optuna storage. Default: a journal file.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a long job.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command these fields of RunOptions as options of its own, without names all fields.

    The command has a parameter `options`, which holds them; the other fields keep their defaults.
    Typer reads the signature of the function that is returned.
    """
    unknown = set(names) - {field.name for field in fields(RunOptions)}
    assert not unknown, f"no fields of RunOptions: {unknown}"
    shared = [field for field in fields(RunOptions) if not names or field.name in names]

    def declare(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**given: object) -> None:
            values = {field.name: given.pop(field.name) for field in shared}
            command(**given, options=RunOptions(**values))  # type: ignore[arg-type]

        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "options"
        ]
        more = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=field.type,
            )
            for field in shared
        ]
        vars(called)["__signature__"] = inspect.Signature([*own, *more])
        called.__annotations__ = {each.name: each.annotation for each in (*own, *more)}
        return called

    return declare


_FLAGS = {
    "targets": "--to",
    "proxy": "--from",
    "max_seeds": "--max-seeds",
}  # fields whose option has another name


def flag(field: str) -> str:
    """The flag that sets a field of a suite or of RunOptions, such as `--results`."""
    return _FLAGS.get(field, f"--{field.replace('_', '-')}")
