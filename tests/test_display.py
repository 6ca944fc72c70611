"""The terminal shows a text as it stands, whoever wrote it."""

import io

import pytest
from rich.console import Console, RenderableType

from hptransfer.cli import progress, tables
from hptransfer.testing import Check

NAME = "[/red] [bold]b[/bold] :smile: \x1b[2J"
SHOWN = r"[/red] [bold]b[/bold] :smile: \x1b[2J"


def printed(*renderables: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)  # also for a console that reads markup
    for each in renderables:
        console.print(each)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_table_shows_its_title_and_cells_as_they_stand() -> None:
    table = tables.plain_table(NAME, ("optimizer", "runs"), [(NAME, "3")])
    assert printed(table).count(SHOWN) == 2


def test_a_clause_and_its_head_are_shown_as_they_stand() -> None:
    for passed, mark in ((True, "holds"), (False, "fails")):
        line = tables.check_line(Check(NAME, passed, NAME))
        assert printed(line) == f"  {mark}  {SHOWN}  {SHOWN}\n"
    assert printed(tables.checks_head(NAME, "optimizer")) == f"{SHOWN} as an optimizer\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_shown_as_it_stands(terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200)
    with progress.bar(console, 1, quiet=False) as advance:
        advance(NAME)
    assert SHOWN in file.getvalue()
