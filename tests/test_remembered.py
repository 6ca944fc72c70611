"""Memory of earlier sessions: costs and speeds, in the cache folder."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hptransfer.cost import cost_model
from hptransfer.cost.count import Cost, count
from hptransfer.cost.remembered import Cache
from hptransfer.run.session import Options, Session
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.file import load_suite
from hptransfer.train.prepare import Prepared
from sessions import session, tiny


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hptransfer" / "known.json"


def suite(**changes: object) -> SuiteTable:
    return load_suite("quickstart", {"proxy": 32, "targets": [], "expect": {}, **changes})


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths whose cost is counted from now on."""
    widths: list[int] = []

    def counting(prepared: Prepared) -> Cost:
        widths.append(prepared.spec.width)
        return count(prepared)

    monkeypatch.setattr(cost_model, "count", counting)
    return widths


def cost(chosen: SuiteTable, folder: Path) -> Cost:
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
    monkeypatch.setattr(cost_model, "sources", lambda: "another version of the code")
    assert cost(suite(), tmp_path) == first
    assert widths == [32, 32, 64, 32]


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{", "[1", "[]", "[" * 100_000),
        *('{"key": 1}', '{"key": [1.0]}', '{"key": {"values": [1.0]}}', '{"key": {"values": {}}}'),
        '{"key": {"values": ["1.0"], "digest": "DIGEST"}}',
    ],
)
def test_a_damaged_cache_is_filled_again(cache: Path, damage: str) -> None:
    Cache().put("key", [1.0])
    assert Cache().get("key") == [1.0]
    entry = json.loads(cache.read_text())["key"]
    cache.write_text(damage.replace("DIGEST", entry["digest"]))
    assert Cache().get("key") is None
    Cache().put("key", [2.0])
    assert Cache().get("key") == [2.0]


def test_an_entry_of_another_key_is_not_believed(cache: Path) -> None:
    Cache().put("key", [1.0])
    cache.write_text(cache.read_text().replace('"key"', '"other"'))
    assert Cache().get("other") is None


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    known = Cache()
    known.put("key", [1.0])
    assert known.get("key") == [1.0]
    assert Cache().get("key") is None


MODEL = """
import mine_parts
from torch import nn


def mine(width: int, *, vocab: int = 256, context: int = 16):
    \"\"\"A model whose size another file decides.\"\"\"
    hidden = [nn.Linear(width, width, bias=False) for _ in range(mine_parts.hidden)]
    return nn.Sequential(nn.Embedding(vocab, width), *hidden, nn.Linear(width, vocab, bias=False))
"""


def test_the_cost_of_a_model_of_the_users_own_is_counted_in_every_session(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The imports of the model decide its size, and no key changes with them."""
    path = tmp_path / "mine.py"
    path.write_text(MODEL)
    parts = ModuleType("mine_parts")
    monkeypatch.setitem(sys.modules, "mine_parts", parts)

    def parameters(hidden: int) -> int:
        vars(parts)["hidden"] = hidden
        waiting = session(tiny(tmp_path, model={"name": f"{path}:mine"}), tmp_path)
        return waiting.costs.cost(waiting.plan()[0]).parameters

    assert parameters(2) - parameters(1) == 8 * 8
