"""The registry and a source: it looks up names that stand for others, and runs none."""

from pathlib import Path

import pytest

from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.registry import Part

PART = '''
import typing
import typing as t
from typing import Final, Literal
from typing import Literal as Values
from hptransfer.optimizers.scion import Start as FromElsewhere
from no_such_package import Unknown

Named: typing.TypeAlias = Literal["a", "b"]
Again = Named
Loop = Pool
Pool = Loop
Rate = float
COMMON = {"gamma": (0.0, 9.0)}
LIMITS: Final[dict] = {**COMMON, "beta": (0.0, 0.5), "o.alpha": (1, 2), "o.clip": (0.0, 1.0)}


def o(
    p,
    *,
    plain: Literal["a", "b"] = "a",
    named: Named = "a",
    again: Again = "a",
    quoted: "Named" = "a",
    dotted: typing.Literal["a", "b"] = "a",
    short: t.Literal["a", "b"] = "a",
    other: Values["a", "b"] = "a",
    elsewhere: FromElsewhere = "zero",
    loop: Loop = "a",
    unknown: Unknown = "a",
    missing: NoSuchName = "a",
    words: "no annotation at all" = "a",
    listed: list["a"] = "a",
    rate: Rate = 1,
    alpha: float = 1,
    beta: float = 0.1,
    gamma: float = 0.1,
):
    """One."""


def clip_is_a_field(p, *, clip: float = 1.0):
    """Another."""
'''


@pytest.fixture
def part(tmp_path: Path) -> Part:
    (tmp_path / "part.py").write_text(PART)
    return registry.describe("optimizer", f"{tmp_path}/part.py:o")


def test_a_literal_by_any_name_gives_the_choices(part: Part) -> None:
    same = ("plain", "named", "again", "quoted", "dotted", "short", "other")
    assert part.choices == {
        **dict.fromkeys(same, ("a", "b")),
        "elsewhere": ("zero", "first"),
    }
    assert (part.defaults["rate"], type(part.defaults["rate"])) == (1.0, float)
    with pytest.raises(InputError, match="got 'c', allowed: a, b"):
        part.resolve({"again": "c"}, "hp")


def test_limits_may_have_an_annotation_and_take_others_in(part: Part) -> None:
    assert part.limits == {
        "beta": (0.0, 0.5),
        "alpha": (1, 2),
        "gamma": (0.0, 9.0),
        "clip": (0.0, 1.0),
    }


@pytest.mark.parametrize("limits", ["function()", "{[]: 1}", "[1, 2]", "{**UNKNOWN}"])
def test_a_foreign_constant_of_this_name_is_no_limit(limits: str, tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(f'LIMITS = {limits}\ndef o(p, *, x: float = 1.0):\n  """O."""\n')
    assert registry.describe("optimizer", f"{tmp_path}/p.py:o").limits == {}


def test_a_limit_of_clip_is_the_runs_unless_a_field_has_that_name(tmp_path: Path) -> None:
    text = PART.replace('"o.clip"', '"clip_is_a_field.clip"')
    (tmp_path / "part.py").write_text(text)
    field = registry.describe("optimizer", f"{tmp_path}/part.py:clip_is_a_field")
    with pytest.raises(InputError, match=r"hp.clip: got 2.0, allowed: 0.0 to 1.0"):
        field.resolve({"clip": 2.0}, "hp")
    run = registry.describe("optimizer", f"{tmp_path}/part.py:o")
    run.check_clip(2.0, "clip")


def test_modules_that_import_a_name_from_each_other_define_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ring_one.py").write_text("from ring_two import f\n")
    (tmp_path / "ring_two.py").write_text("from ring_one import f\n")
    with pytest.raises(InputError, match="defines no 'f'"):
        registry.describe("optimizer", "ring_one:f")


def test_no_optimizer_writes_one_literal_twice() -> None:
    """The registry reads aliases, so that no module copies a set of choices."""
    for name in registry.BUILTINS["optimizer"]:
        path = Path(registry.target("optimizer", name).partition(":")[0].replace(".", "/") + ".py")
        text = (Path(registry.__file__).parents[2] / path).read_text()
        literals = [part.partition("]")[0] for part in text.split("Literal[")[1:]]
        assert len(literals) == len(set(literals)), path
