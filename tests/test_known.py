"""What sessions remember of each other: costs and speeds, in the cache folder."""

import json
from pathlib import Path

import pytest

from hptransfer.cost import estimate
from hptransfer.cost.remembered import Known
from hptransfer.run import costs
from hptransfer.run.session import Options, Session
from hptransfer.spec import RunSpec
from hptransfer.suite.claim import Suite
from hptransfer.suite.file import load_suite


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hptransfer" / "known.json"


def suite(**changes: object) -> Suite:
    return load_suite("quickstart", {"proxy": 32, "targets": [], **changes}).only(["adamw"])


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths whose cost is counted from now on."""
    widths: list[int] = []

    def count(spec: RunSpec, data: estimate.Data) -> estimate.Estimate:
        widths.append(spec.width)
        return estimate.estimate(spec, data)

    monkeypatch.setattr(costs, "estimate", count)
    return widths


def cost(chosen: Suite, folder: Path) -> estimate.Estimate:
    session = Session(chosen, Options(folder, device="cpu"), ["adamw"])
    return session.costs.cost(session.plan()[0])


def test_a_cost_is_counted_once_for_what_decides_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = counted(monkeypatch)
    first = cost(suite(), tmp_path)
    assert cost(suite(steps=7), tmp_path) == first
    assert widths == [32]
    assert cost(suite(batch=16), tmp_path).activations > first.activations
    assert cost(suite(proxy=64), tmp_path).parameters > first.parameters
    assert widths == [32, 32, 64]
    monkeypatch.setattr(costs, "sources", lambda: "another version of the code")
    assert cost(suite(), tmp_path) == first
    assert widths == [32, 32, 64, 32]


NOTHING = ("", "{", "[1", "[]", "1", "null", '"key"', '{"key": 1}', "[" * 100_000, "ÿ")


@pytest.mark.parametrize("damage", NOTHING)
def test_a_damaged_cache_is_filled_again(cache: Path, damage: str) -> None:
    Known().put("key", [1.0])
    assert Known().get("key") == [1.0]
    cache.write_text(damage)
    assert Known().get("key") is None
    Known().put("key", [2.0])
    assert Known().get("key") == [2.0]


SHAPES = (
    1,
    "a",
    None,
    True,
    {},
    {"text": "[1]"},
    [],
    [1],
    [[]],
    [1.0] * 3,
    [1.0] * 4,
    [1.0] * 6,
    [1.0] * 7,
    [None] * 4,
    ["a"] * 6,
    [-1] * 6,
    [0, 0, 0, 0],
    [{}],
    [{"name": "w"}],
    [{"name": 1, "role": "hidden", "shape": 3, "base_shape": []}],
    [[1, 1.0, 1.0, 99]],
    ["[1.0]", "0" * 20],
    ["[1.0, 1.0, 1.0, 1]", 1],
    ["[", ""],
)


def test_entries_of_the_wrong_shape_are_found_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever takes the place of what a session put there."""
    speed = estimate.Speed(4, 7.0, 8.0, 1)
    monkeypatch.setattr(costs, "calibrate", lambda *_: speed)

    def found() -> tuple[object, ...]:
        opened = Session(suite(), Options(tmp_path, device="cpu", workers=1), ["adamw"])
        run = opened.plan()[0]
        return opened.costs.cost(run), opened.costs.described(run), opened.costs.speed(run)

    whole = found()
    entries = json.loads(cache.read_text())
    assert len(entries) == 3, "cost, parameters and speed"
    for shape in SHAPES:
        cache.write_text(json.dumps(dict.fromkeys(entries, shape)))
        assert found() == whole, shape
        assert json.loads(cache.read_text()).keys() == entries.keys()


def test_one_changed_digit_of_an_entry_is_damage(cache: Path) -> None:
    Known().put("key", [1.25, {"a": 3}])
    Known().put("other", [7])
    cache.write_text(cache.read_text().replace("1.25", "1.35"))
    assert Known().get("key") is None
    assert Known().get("other") == [7]


def test_an_entry_under_another_key_is_damage(cache: Path) -> None:
    Known().put("key", [1.25])
    cache.write_text(cache.read_text().replace('"key"', '"yek"'))
    assert Known().get("yek") is None


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    known = Known()
    known.put("key", [1.0])
    assert known.get("key") == [1.0]
    assert Known().get("key") is None
