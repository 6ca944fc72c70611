"""What `run` says before it trains more seeds on a finished suite."""

from pathlib import Path

import pytest

from commanded import SUITE, hptransfer
from hptransfer.analysis.frame import select
from hptransfer.analysis.transfer import transfers
from hptransfer.records.store import Store
from hptransfer.spec import RunSpec
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.train.engine import load_data
from kept import keep
from tuned import whole


def steep(spec: RunSpec) -> float:
    """lr* is 2^-5 at both widths, and an octave beside it is seen to cost much."""
    return 2.5 + 0.2 * (spec.log2_lr + 5) ** 2 + 0.001 * spec.seed * spec.log2_lr


def tilted(spec: RunSpec) -> float:
    """At width 16 lr* is half an octave lower, and the slope of a curve depends on its seed."""
    if spec.width == 8:
        return steep(spec)
    tilt = 0.05 * (spec.seed % 3 - 1) * (spec.log2_lr + 5.5)
    return 2.5 + 0.1 * (spec.log2_lr + 5.5) ** 2 + tilt


@pytest.fixture
def finished(tmp_path: Path, tiny_text: Path) -> Suite:
    """A suite of three seeds, all of which ran: AdamW is undecided, and Scion holds."""
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE.replace("TEXT", str(tiny_text)).replace("seeds = 2", "seeds = 3"))
    table = load_suite(str(path))
    suite = resolve(table, load_data(table.data))

    def loss(spec: RunSpec) -> float:
        return (tilted if spec.optimizer["name"] == "adamw" else steep)(spec)

    frame = whole(suite, loss)
    keep(tmp_path / "results", suite, frame)
    verdicts = {t.optimizer: t.verdict for t in transfers(suite, select(suite, frame))}
    assert verdicts == {"adamw": "inconclusive", "scion": "transfers"}
    return suite


def test_a_dry_run_names_the_undecided_verdicts_and_their_seeds(
    tmp_path: Path, finished: Suite
) -> None:
    done = hptransfer("run", "tiny.toml", "--max-seeds", 8, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "undecided, so more seeds run: adamw at width 16 (5 seeds)\n" in done.stdout
    assert "scion at" not in done.stdout


def test_a_run_says_it_and_trains_the_seeds(tmp_path: Path, finished: Suite) -> None:
    before = Store(tmp_path / "results", "tiny").frame()
    done = hptransfer("run", "tiny.toml", "--max-seeds", 5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "undecided, so more seeds run: adamw at width 16 (5 seeds)\n" in done.stderr
    rows = select(finished, Store(tmp_path / "results", "tiny").frame())
    new = rows[~rows["key"].isin(before["key"])]
    assert {"adamw"} == set(new["optimizer"])
    assert {3, 4} <= set(new["seed"])


@pytest.mark.parametrize("option", [(), ("--seeds", 5, "--max-seeds", 5), ("--optimizer", "scion")])
def test_nothing_is_called_undecided_where_no_verdict_asks_for_seeds(
    option: tuple[object, ...], tmp_path: Path, finished: Suite
) -> None:
    """No seeds are left, all seeds belong to the first look, or the verdict stands."""
    most = () if "--seeds" in option or not option else ("--max-seeds", 8)
    done = hptransfer("run", "tiny.toml", *option, *most, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "more seeds run" not in done.stdout
