"""coords and validate: the commands whose exit code is the answer."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from hptransfer.cli.options import FailedError, Json, out


def validate(
    target: Annotated[
        str, typer.Argument(help="file.py:name, package.module:name, or a name of ours.")
    ],
    kind: Annotated[
        Literal["optimizer", "model", "dataset"] | None,
        typer.Option(help="What it is. Default: seen from its arguments."),
    ] = None,
    width: Annotated[int, typer.Option(min=2, help="Width that a model is built at.")] = 64,
    as_json: Json = False,
) -> None:
    """Contract tests on an optimizer, a model or a data set of yours; exit code 1 if one fails."""
    from hptransfer.display import check_line, checks_head
    from hptransfer.testing import kind_of
    from hptransfer.testing import validate as checks

    kind = kind or kind_of(target)  # type: ignore[assignment]
    assert kind is not None
    found = []
    if not as_json:
        out.print(checks_head(target, kind))
    for check in checks(target, kind, width):
        found.append(check)
        if not as_json:
            out.print(check_line(check), soft_wrap=True)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in found]))
    broken = [check for check in found if not check.passed]
    if broken:
        raise FailedError(
            f"{target}: {len(broken)} of {len(found)} clauses do not hold",
            "README, section Your own parts, says what each part has to give",
        )
