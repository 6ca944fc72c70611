"""What sessions remember of each other: costs and speeds, in the cache folder."""

from pathlib import Path

import pytest

from hptransfer.cost import estimate
from hptransfer.cost.remembered import Known
from hptransfer.run import costs
from hptransfer.run.session import Options, Session
from hptransfer.spec import RunSpec
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import load_suite


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hptransfer" / "known.json"


def suite(**changes: object) -> SuiteTable:
    return load_suite("quickstart", {"proxy": 32, "targets": [], **changes})


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths whose cost is counted from now on."""
    widths: list[int] = []

    def count(spec: RunSpec, data: estimate.Data) -> estimate.Estimate:
        widths.append(spec.width)
        return estimate.estimate(spec, data)

    monkeypatch.setattr(costs, "estimate", count)
    return widths


def cost(chosen: SuiteTable, folder: Path) -> estimate.Estimate:
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


@pytest.mark.parametrize("damage", ["", "{", "[1", "[]"])
def test_a_damaged_cache_is_filled_again(cache: Path, damage: str) -> None:
    Known().put("key", [1.0])
    assert Known().get("key") == [1.0]
    cache.write_text(damage)
    assert Known().get("key") is None
    Known().put("key", [2.0])
    assert Known().get("key") == [2.0]


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    known = Known()
    known.put("key", [1.0])
    assert known.get("key") == [1.0]
    assert Known().get("key") is None
