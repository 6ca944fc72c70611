"""Commands that only read run no stranger's code and do not wait for torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from commanded import hptransfer
from hptransfer.datasets import Unread
from hptransfer.records.store import Store
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import resolve

PARTS = '''
def optimizer(p, *, beta: float = 0.9):
    """An optimizer."""

def model(width, *, vocab: int = 256, context: int = 8):
    """A model."""

def data():
    """A data set."""
'''
SUITE = """
claim = "code"
model = "stranger.inside.parts:model"
data = "stranger.inside.parts:data"
proxy = 8
steps = 2
batch = 2

[optimizers.package]
use = "stranger.inside.parts:optimizer"
lr = "2^-4..2^-2"
[optimizers.file]
use = "stranger.py:optimizer"
lr = "2^-4..2^-2"
[optimizers.entry]
use = "theirs"
lr = "2^-4..2^-2"
sampler = "stranger.inside.parts:Sampler"
[optimizers.torch]
use = "torch.optim:Adagrad"
lr = "2^-4..2^-2"
"""
RUN = """
import sys
from hptransfer import cli
try:
    cli.main()
finally:
    print("torch" in sys.modules, [name for name in sys.modules if "stranger" in name])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite whose parts write a file at import, and its manifest."""
    marks = f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
    package = tmp_path / "stranger"
    (package / "inside").mkdir(parents=True)
    for place in (package, package / "inside"):
        (place / "__init__.py").write_text(marks)
    (package / "inside" / "parts.py").write_text(marks + PARTS)
    (tmp_path / "stranger.py").write_text(marks + PARTS)
    stated = tmp_path / "stranger-1.0.dist-info"
    stated.mkdir()
    (stated / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    groups = {
        "optimizers": "theirs = stranger.inside.parts:optimizer",
        "models": "their_model = stranger.inside.parts:model",
        "datasets": "their_data = stranger.inside.parts:data",
    }
    (stated / "entry_points.txt").write_text(
        "".join(f"[hptransfer.{group}]\n{line}\n" for group, line in groups.items())
    )
    (tmp_path / "mine.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = resolve(load_suite("mine.toml"), Unread("0" * 64))
    Store(tmp_path / "results", "mine").write_manifest(suite)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--json"],
        ["list", "optimizers"],
        ["cite", "mine.toml"],
        ["report"],
        ["report", "mine.toml", "--json"],
    ],
    ids=" ".join,
)
def test_reading_imports_no_part_and_no_torch(words: list[str], folder: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); sys.argv[1:] = {words!r}\n{RUN}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False []"
    assert not (folder / "imported").exists()
    if words[0] == "list":
        assert "theirs" in done.stdout


def test_help_of_plan_says_that_a_suite_is_code(tmp_path: Path) -> None:
    done = hptransfer("plan", "--help", cwd=tmp_path)
    assert "a stranger's suite is a stranger's code" in " ".join(done.stdout.split())


def test_the_parts_of_a_stranger_leave_their_mark(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", "import stranger.inside.parts"], cwd=folder, check=True)
    assert (folder / "imported").exists()
