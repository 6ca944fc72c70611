"""Options of the command line: one declaration each, and commands take them by name."""

import ast
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from hptransfer import cli
from hptransfer.cli.options import RunOptions, flag, takes


def app() -> tuple[typer.Typer, list[tuple[str, RunOptions]]]:
    """A command with two of the options, and a log of its calls."""
    calls: list[tuple[str, RunOptions]] = []

    @takes("steps", "as_json")
    def command(name: str = "x", *, options: RunOptions) -> None:
        calls.append((name, options))

    made = typer.Typer()
    made.command()(command)
    return made, calls


def test_a_command_fills_the_options_that_it_names_and_the_others_keep_their_defaults() -> None:
    made, calls = app()
    done = CliRunner().invoke(made, ["--name", "y", "--steps", "3", "--json"])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(made, []).exit_code == 0
    assert calls == [("y", RunOptions(steps=3, as_json=True)), ("x", RunOptions())]


@pytest.mark.parametrize("arguments", [["--lanes", "2"], ["--steps", "0"]])
def test_a_command_refuses_an_option_that_it_does_not_name_and_a_value_out_of_range(
    arguments: list[str],
) -> None:
    made, calls = app()
    assert CliRunner().invoke(made, arguments).exit_code == 2
    assert calls == []


def test_a_name_that_is_no_option_is_refused_where_the_command_is_declared() -> None:
    with pytest.raises(AssertionError, match="no fields of RunOptions"):
        takes("stepps")


def test_every_option_and_cure_that_an_error_names_is_a_flag_of_a_command() -> None:
    package = Path(cli.__file__).parents[1]
    commands = typer.main.get_command(cli.app)
    assert isinstance(commands, TyperGroup)
    flags = {
        name
        for command in commands.commands.values()
        for parameter in command.params
        for name in parameter.opts
    }
    named = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
                for keyword in node.keywords:
                    if keyword.arg in ("option", "cures"):
                        parts = ast.walk(keyword.value)
                        named |= {n.value for n in parts if isinstance(n, ast.Constant)}
    assert len(named) >= 6
    assert {flag(str(name)) for name in named} <= flags
