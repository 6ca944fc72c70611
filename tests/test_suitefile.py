"""A suite file -> SuiteTable: refusals and defaults."""

import re
from pathlib import Path

import pytest

from hptransfer.datasets import Unread
from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve

SUITE = """
claim = "a claim"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 16 }
data = "python_source"
base = { width = 8 }
proxy = 16
targets = [32]
steps = 3
batch = 2

[optimizers.adamw_mup]
lr = "2^-8..2^-4"
"""

WRONG = {
    "a misspelt base": (
        "base = { width",
        "base = { widht",
        "base: got widht = 8, takes a width of at least 1",
    ),
    "a base of zero": ("width = 8 }", "width = 0 }", "base: got width = 0, takes a width"),
    "a model's name": ('name = "gpt"', "name = 3", "model: no name, or one that is not a string"),
    "a data set's name": ('"python_source"', '{ name = ["x"] }', "data: no name, or one that is"),
    "an infinite clip": ("steps = 3", "clip = inf\nsteps = 3", "clip: got inf, input should be"),
    "an infinite clip of one": (
        'lr = "2^-8',
        'clip = inf\nlr = "2^-8',
        "optimizers.adamw_mup.clip: got inf",
    ),
    "what the data say": (
        "context = 16",
        "context = 16, vocab = 1000",
        "model.vocab: the data set decides it",
    ),
    "nested brackets": ("[32]", "[" * 3000 + "]" * 3000, "mine.toml: too many nested brackets"),
    "nested tables": ("[32]", "{a=" * 2000 + "1" + "}" * 2000, "too many nested brackets"),
    "an integer of 5,000 digits": (
        "steps = 3",
        "steps = " + "9" * 5000,
        "mine.toml: Exceeds the limit (4300 digits) for integer string conversion",
    ),
    "a hexadecimal one": ("steps = 3", "steps = 0x" + "f" * 5000, "steps: got an integer beyond"),
    "a model's large field": ("n_layer = 1", f"n_layer = {10**400}", "model.n_layer: got an int"),
    "a large target": ("[32]", f"[32, {2**70}]", "targets.1: got an integer beyond"),
    "steps beyond all memory": ("steps = 3", f"steps = {2**52}", "steps: got 4503599627370496"),
    "a NUL in a model's file": ('"gpt"', '"a\\u0000b.py:f"', "model.name: got 'a\\x00b.py:f',"),
    "a large exponent": ('"2^-8', '"2^-' + "9" * 5000, "needs powers of two such as"),
    "a name in the file": ("steps = 3", 'name = "x"\nsteps = 3', "name: not a field of a suite"),
    "an origin": ("steps = 3", "origin = {}\nsteps = 3", "origin: not a field of a suite"),
    "a manifest's field": ("steps = 3", "templates = {}\nsteps = 3", "templates: unknown key"),
}


def written(folder: Path, old: str = "", new: str = "") -> str:
    assert old in SUITE
    place = folder / "mine.toml"
    place.write_text(SUITE.replace(old, new) if old else SUITE)
    return str(place)


@pytest.mark.parametrize("name", ["a b", ".hidden", ".", "..", 'x"y', "é", "a:b", "a\nb", "[red]"])
def test_a_suite_is_named_by_letters_digits_and_a_few_signs(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.toml").write_text(SUITE)
    with pytest.raises(InputError, match=r"the suite's name is .*, allowed: letters a to z, digi"):
        load_suite(str(tmp_path / f"{name}.toml"))


@pytest.mark.parametrize(
    "label", ["a b", "[/red]", "$x$", "a.py:b", "=1+1", '\\"\\"\\"', "", "é", "_a", "-a", ".a"]
)
def test_a_label_is_of_letters_digits_and_a_few_signs(label: str, tmp_path: Path) -> None:
    table = f'[optimizers."{label}"]\nuse = "adamw_mup"'
    with pytest.raises(InputError, match=r"got the label .*, allowed: letters") as caught:
        load_suite(written(tmp_path, "[optimizers.adamw_mup]", table))
    assert "[optimizers.mine]" in caught.value.hint


def test_names_of_letters_digits_and_a_few_signs_are_taken(tmp_path: Path) -> None:
    place = tmp_path / "3-My.suite_v1.toml"
    table = '[optimizers."A-1.b_c"]\nuse = "adamw_mup"'
    place.write_text(SUITE.replace("[optimizers.adamw_mup]", table))
    suite = load_suite(str(place))
    assert (suite.name, list(suite.optimizers)) == ("3-My.suite_v1", ["A-1.b_c"])


LONG = "n" * 5000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"gpt"', f'"{LONG}"'),
        ('"gpt"', f'"{LONG}.py:f"'),
        ('"gpt"', f'"{LONG}:f"'),
        ('"python_source"', f'"{LONG}"'),
        ("steps = 3", f'steps = "{LONG}"'),
        ("steps = 3", f'steps = "{"n n" * 2000}"'),
        ("steps = 3", f"steps = {[1] * 2000}"),
        ("steps = 3", f"steps = 3\n{LONG} = 3"),
        ("[optimizers.adamw_mup]", f"[optimizers.{LONG}]"),
        ('lr = "2^-8', f'hp = {{ {LONG} = 1 }}\nlr = "2^-8'),
        ('"2^-8..2^-4"', f'"2^-8..2^-4"\nhp = {{ beta1 = "{LONG}" }}'),
        ('"2^-8..2^-4"', f'"2^-8..2^-4"\nhp = {{ beta1 = {[0.5] * 2000} }}'),
    ],
)
def test_a_message_shows_200_characters_of_a_value(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_suite(written(tmp_path, old, new))
    assert max(map(len, re.findall(r"[^\s'\",:]+", str(caught.value)))) <= 200
    assert len(str(caught.value)) < 800
    assert len(caught.value.hint) < 800


@pytest.mark.parametrize("name", [LONG, f"{LONG}.toml"])
def test_a_name_that_no_file_can_have_is_an_unknown_suite(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown suite 'n+…'|File name too long"):
        load_suite(name)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_on_one_line(case: str, tmp_path: Path) -> None:
    old, new, message = WRONG[case]
    with pytest.raises(InputError) as caught:
        load_suite(written(tmp_path, old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def run_at(suite: SuiteTable, width: int) -> RunSpec:
    return resolve(suite, Unread()).template("adamw_mup", width)


def test_the_base_is_the_proxy_where_none_is_named(tmp_path: Path) -> None:
    assert run_at(load_suite(written(tmp_path)), 32).base == {"width": 8}
    left_out = load_suite(written(tmp_path, "base = { width = 8 }\n"))
    assert run_at(left_out, 32).base == {"width": 16}
    # a proxy on the command line moves the search, not the base width
    assert run_at(left_out.narrowed(proxy=64), 32).base == {"width": 16}


def test_a_suite_knows_what_names_it_on_the_command_line(tmp_path: Path) -> None:
    place = written(tmp_path)
    assert load_suite(place).address == place
    assert load_suite("quickstart").address == "quickstart"
    assert load_suite(place, {"trials": 3, "steps": 2}).origin.changed == {"trials": 3}


MAKES = '''
import torch

def make(model, lr, *, decay: float = 0.0):
    """Momentum SGD over the module."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay)

def rule(p):
    """A rule."""
'''
GROUPS = {
    'use = "torch.optim:SGD"\nbuild = "makes.py:make"': "use, build: both name the optimizer",
    'build = "makes.py:rule"': "build: the first argument of 'rule' is not called model",
    'build = "torch.optim:SGD"': "build: the first argument of 'SGD' is not called model",
    "by_role = { hidden = { x = 1 } }": "by_role: 'adamw_mup' is a rule, which says itself",
    'build = "makes.py:make"\nby_role = { rest = { x = 1 } }': "by_role: 'make' is given the model",
    'use = "torch.optim:SGD"\nby_role = { middle = { x = 1 } }': "by_role.middle",
    'use = "torch.optim:SGD"\nby_role = { rest = { lr = 1 } }': "by_role.rest: a group's lr is",
    'use = "torch.optim:SGD"\nby_role = { rest = { lr_factor = 0 } }': "a positive number, times",
    'use = "torch.optim:SGD"\nby_role = { rest = { lr_factor = "x" } }': "a positive number, times",
    'use = "torch.optim:SGD"\nby_role = { rest = { params = 1 } }': "by_role.rest.params: the role",
}


@pytest.mark.parametrize("lines", GROUPS)
def test_wrong_groups_of_a_torch_optimizer_are_one_line(lines: str, tmp_path: Path) -> None:
    (tmp_path / "makes.py").write_text(MAKES)
    path = tmp_path / "mine.toml"
    path.write_text(SUITE + lines + "\n")
    with pytest.raises(InputError, match=re.escape(GROUPS[lines])) as caught:
        load_suite(str(path))
    assert caught.value.hint


def test_groups_by_role_and_a_function_of_the_model_are_part_of_a_runs_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "makes.py").write_text(MAKES)
    path = tmp_path / "mine.toml"

    def key(lines: str) -> str:
        path.write_text(SUITE + lines + "\n")
        return resolve(load_suite(str(path)), Unread()).templates["adamw_mup"].key

    plain = 'use = "torch.optim:SGD"\n'
    by_role = "by_role = { hidden = { nesterov = false }, rest = { lr_factor = 0.1 } }"
    keys = {
        key(plain),
        key(plain + by_role),
        key(plain + by_role.replace("0.1", "0.2")),
        key('build = "makes.py:make"'),
        key('build = "makes.py:make"\nhp = { decay = 0.1 }'),
    }
    assert len(keys) == 5
    before = key('build = "makes.py:make"')
    (tmp_path / "makes.py").write_text(MAKES.replace("momentum=0.9", "momentum=0.8"))
    assert key('build = "makes.py:make"') != before
