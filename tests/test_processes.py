"""Every optimizer of ours in two processes: their weights are those of one process alone."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hptransfer.optim
from looped import ROUNDING, Net, apart, plain, weights
from processes import CASES, RANKS, STEPS
from units import OPTIMIZERS

reference = functools.cache(plain)
Found = dict[tuple[str, str], dict[str, Tensor] | str]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each of two processes found, gloo between them."""
    folder = tmp_path_factory.mktemp("processes")
    script = Path(__file__).parent / "processes.py"
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder)],
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * RANKS, "\n".join(said)
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(case: str, name: str, found: list[Found]) -> None:
    if case == "drawn":
        model = hptransfer.optim.init_(Net(16), name, base=Net(8))
        expected, rounding = weights(model), 0.0
    else:
        expected, rounding = reference(name, STEPS), ROUNDING
    for each in found:
        own = each[case, name]
        assert isinstance(own, dict), own
        assert apart(own, expected) <= rounding
