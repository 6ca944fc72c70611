"""Simulated studies in small: the search is the package's, and the rules err as their page says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fitted import recorded, surfaces
from hptransfer.search.bracket import Search
from hptransfer.search.trials import Trials
from simulated import (
    HIGH,
    INIT,
    LOW,
    PROXY_SEEDS,
    SEEDS,
    START,
    TRIALS,
    Losses,
    Surface,
    X,
    index,
    search,
    studies,
)
from verdict_rules import RULES, ours

ROOT = Path(__file__).parent.parent
TYPICAL = Surface(0.036, 0.006, 0.004, 0.003)
NOISY = Surface(0.030, 0.03, 0.025, 0.012)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "tests" / "benchmarks" / "verdicts.py"
    spec = importlib.util.spec_from_file_location("verdicts_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("surface", [TYPICAL, NOISY])
@pytest.mark.parametrize("start", [START, (-8.0, -6.0)])
def test_the_search_of_a_simulation_is_that_of_the_package(
    surface: Surface, start: tuple[float, float]
) -> None:
    for seed in range(10):
        losses = Losses.of(np.random.default_rng(seed), surface, -7.3)
        told = np.full((len(X), SEEDS), np.nan)
        search(losses, told, start, PROXY_SEEDS)
        cells = np.ndindex(*losses.table.shape)
        known = {((float(X[i]), "{}"), s): float(losses.table[i, s]) for i, s in cells}
        trials = Trials(known, dict.fromkeys(known, INIT))
        assert not trials.missing(Search(start, (LOW, HIGH), TRIALS).stages(trials, PROXY_SEEDS))
        mine = {(float(X[i]), int(s)) for i, s in zip(*np.nonzero(~np.isnan(told)), strict=True)}
        assert mine == {(lr, s) for (lr, _), s in trials.told}


def test_replicates_share_their_truth_and_not_their_losses() -> None:
    a, b, c, _ = studies(TYPICAL, -1.0, count=4, seed=0)
    assert a.losses.center == b.losses.center != c.losses.center
    assert not np.array_equal(a.losses.table, b.losses.table)
    assert a.targets[1].losses.center == pytest.approx(a.losses.center - 1)


def test_the_true_regret_is_the_cost_of_the_carried_lr() -> None:
    [study] = studies(TYPICAL, -2.0, count=1, seed=0)
    z = study.carried - study.targets[1].losses.center
    assert study.targets[1].regret == pytest.approx(float(TYPICAL.cost(z)))
    assert index(study.carried) == index(float(X[index(study.carried)]))


def test_plain_drifts_and_plain_transfers_are_told_apart() -> None:
    words = {
        drift: {ours(study).verdict for study in studies(TYPICAL, drift, count=10, seed=3)}
        for drift in (0.0, -2.0)
    }
    assert words == {0.0: {"transfers"}, -2.0: {"drifts"}}


def test_most_intervals_hold_the_truth_on_a_noisy_surface(script: ModuleType) -> None:
    found = [script.covered(study, (3, 3)) for study in studies(NOISY, -1.0, count=60, seed=5)]
    shares = {name: np.mean([each[name] for each in found]) for name in found[0]}
    assert min(shares.values()) >= 0.87  # 95% of 60 less three standard errors


def test_the_script_prints_every_table(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["verdicts.py", "--studies", "2", "--surfaces", "typical"])
    script.main()
    printed = capsys.readouterr().out
    assert printed.count("\n## ") == 7
    assert printed.count("| typical |") == 1 + len(script.DRIFTS) + 1 + 1 + 4
    assert all(f"| by hand | {rule} |" in printed for rule in RULES)


def test_no_fitted_surface_has_the_name_of_one_that_was_set_by_hand(script: ModuleType) -> None:
    fits = [each.fitted for each in recorded(script.RECORDS)]
    assert not surfaces(fits, tol=0.01).keys() & script.BY_HAND.keys()


def test_an_unknown_surface_is_named(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["verdicts.py", "--surfaces", "typical", "steap"])
    with pytest.raises(SystemExit):
        script.main()
    assert "no surface steap; there are below tol, flattest quiet," in capsys.readouterr().err


def test_the_tables_of_the_page_are_part_of_what_the_script_printed() -> None:
    printed = (ROOT / "results/reference/verdicts.md").read_text(encoding="utf-8").splitlines()
    page = (ROOT / "docs/verdicts.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in page if line.startswith("|")]
    assert len(rows) > 60
    assert set(rows) <= set(printed)
