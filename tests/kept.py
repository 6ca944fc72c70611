"""Made-up runs of a suite file in a results folder, as a command would have left them."""

from pathlib import Path

import pandas as pd

from frames import Center, study
from hptransfer.datasets import Unread
from hptransfer.records.store import Store
from hptransfer.spec import RunRecord, RunSpec
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import Suite, resolve

SUITE = """
claim = "muon holds, adamw drifts"
model = { name = "gpt", n_layer = 1, head_size = 8, context = 16 }
data = "python_source"
proxy = 32
targets = [64, 128]
steps = 100
batch = 16
negative_control = "adamw"
expect = { adamw = "drifts", muon = "transfers" }
[optimizers.adamw]
lr = "2^-9..2^-4"
[optimizers.muon]
lr = "2^-9..2^-4"
"""

DRIFTS: Center = lambda n: -6.0 if n == 32 else -8.0  # noqa: E731
HOLDS: Center = lambda n: -5.2  # noqa: E731


def resolved(path: Path) -> Suite:
    """The suite of a file on a data set that nothing reads."""
    return resolve(load_suite(str(path)), Unread("0" * 64))


def keep(root: Path, suite: Suite, frame: pd.DataFrame) -> Store:
    """Write the manifest and one record per row."""
    store = Store(root, suite.name)
    store.write_manifest(suite)
    losses = ("loss", "loss_init", "train_loss", "train_mean")
    costs = ("curve", "seconds", "flops", "peak_memory", "finished", "error")
    for row in frame.to_dict("records"):
        env = {**row["env"], "device": row["device"], "lanes": 1, "threads": 1}
        values = {name: row[name] for name in (*losses, *costs, "status")}
        store.append(RunRecord(spec=RunSpec.from_json(row["spec"]), env=env, **values))
    return store


def kept(
    folder: Path, *, text: str = SUITE, name: str = "mine", adamw: Center = DRIFTS,
    muon: Center = HOLDS, seeds: int = 3, noise: float = 0.004,
) -> Store:  # fmt: skip
    """A suite file in the folder, and a study of it under results/."""
    path = folder / f"{name}.toml"
    path.write_text(text)
    suite = resolved(path)
    centers = {"adamw": adamw, "muon": muon}
    return keep(folder / "results", suite, study(suite, centers, seeds=seeds, noise=noise))
