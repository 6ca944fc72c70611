"""The registry and a source: it looks up names that stand for others, and runs none."""

import sys
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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose `__init__` takes names from its modules in every way, and lacks a module."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("taken")]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "part.py").write_text(
        'def named(p, *, beta: float = 0.9):\n    """A rule."""\n\n\n'
        "starred = named\n"
        'def other(p):\n    """Another."""\n'
    )
    (folder / "slow.py").write_text('def late(p, *, eta: float = 0.5):\n    """Late."""\n')
    (folder / "needs.py").write_text("import no_such_package\n")
    (folder / "__init__.py").write_text(
        "from .part import named\nfrom .part import *\nfrom . import part as inner\n"
        "try:\n    from taken.slow import late\nexcept ImportError:\n    late = None\n"
        "from . import *\nnumber = 1\n"
    )
    return "taken"


@pytest.mark.parametrize(
    ("name", "field"), [("named", "beta"), ("starred", "beta"), ("late", "eta")]
)
def test_a_name_that_a_package_takes_from_its_modules_is_the_part_that_they_define(
    name: str, field: str, package: str
) -> None:
    part = registry.describe("optimizer", f"{package}:{name}")
    assert list(part.defaults) == [field]
    home = "slow:late" if name == "late" else "part:named"
    own = registry.describe("optimizer", f"{package}.{home}")
    assert part.revision == own.revision
    assert package not in sys.modules  # no source is run before the part is
    assert registry.load("optimizer", f"{package}:{name}")(None) is None


def test_a_name_that_a_package_does_not_hold_gets_the_names_that_it_holds(package: str) -> None:
    with pytest.raises(InputError, match=r"__init__.py defines no 'nammed'") as caught:
        registry.describe("optimizer", f"{package}:nammed")
    assert caught.value.hint == "did you mean 'named'?"
    with pytest.raises(InputError, match="defines no 'number'"):
        registry.describe("optimizer", f"{package}:number")


def test_a_package_that_lacks_another_names_it(package: str, tmp_path: Path) -> None:
    path = tmp_path / "taken" / "__init__.py"
    path.write_text(path.read_text() + "from .needs import *\n")
    part = tmp_path / "taken" / "part.py"
    part.write_text(part.read_text() + "# another revision, which nothing has loaded yet\n")
    assert registry.describe("optimizer", f"{package}:named").name == "named"  # runs nothing
    with pytest.raises(InputError, match="it needs the module 'no_such_package'") as caught:
        registry.load("optimizer", f"{package}:named")
    assert "install the package that holds it" in caught.value.hint
    path.write_text("from no_such_package import named\n")
    with pytest.raises(InputError, match="no module no_such_package with a source file"):
        registry.describe("optimizer", f"{package}:named")


BASES = """
import torch
import torch.optim as to
from torch.optim import SGD


class Plain(SGD): ...
class Dotted(torch.optim.SGD): ...
class Short(to.SGD): ...
class Twice(Short): ...
class Ring(Ring): ...
class Nobody(torch.nothing.Such): ...
"""


@pytest.mark.parametrize("name", ["Plain", "Dotted", "Short", "Twice"])
def test_an_inherited_init_gives_the_fields(name: str, tmp_path: Path) -> None:
    (tmp_path / "bases.py").write_text(BASES)
    part = registry.describe("optimizer", f"{tmp_path}/bases.py:{name}")
    assert part.defaults == registry.describe("optimizer", "torch.optim:SGD").defaults


@pytest.mark.parametrize("name", ["Ring", "Nobody"])
def test_a_class_without_an_init_in_any_source_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "bases.py").write_text(BASES)
    with pytest.raises(InputError, match=f"no source shows the __init__ of class {name}"):
        registry.describe("optimizer", f"{tmp_path}/bases.py:{name}")


def test_the_first_argument_says_what_an_optimizer_is_called_with(tmp_path: Path) -> None:
    (tmp_path / "o.py").write_text(
        "def rule(p): ...\n"
        "def make(model, lr=0.1, *, beta: float = 0.9): ...\n"
        "class Over:\n    def __init__(self, params, lr=0.1): ...\n"
        "class Whole:\n    def __init__(self, model, lr=0.1): ...\n"
    )
    takes = {
        name: registry.describe("optimizer", f"{tmp_path}/o.py:{name}")
        for name in ("rule", "make", "Over", "Whole")
    }
    assert [part.takes for part in takes.values()] == ["param", "model", "params", "model"]
    assert takes["make"].defaults == {"beta": 0.9}
