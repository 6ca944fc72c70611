"""A study of transport that takes seconds, and cells with made-up losses and diagnostics."""

from pathlib import Path

from hptransfer.analysis.differences import Best
from hptransfer.records.diagnostics import Diagnostic, Point
from hptransfer.spec import RunSpec
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.train.prepare import load_data
from hptransfer.transport.gains import Arm, Known
from hptransfer.transport.study import Cell, Study, load_study

TINY = """
kind = "transport"
claim = "tiny"
strengths = [0.0, 1.0]
seeds = 2
examples = 32

[models.mlp]
model = "mlp"
data = "mnist5k"
width = 8
lr = "2^-5..2^-3"
hp = { polar_steps = 8 }

[[cells]]
model = "mlp"
batch = 8
steps = 6
beta = [0.8]
"""
CELL = Cell("mlp", 8, 0.8, "constant")


def tiny_study(folder: Path, text: str = TINY) -> Study:
    (folder / "tiny.toml").write_text(text)
    return load_study(str(folder / "tiny.toml"))


def tiny_suite(study: Study, stars: dict[Cell, float] | None = None) -> Suite:
    [group] = study.groups()
    table = group.suite(stars or {})
    return resolve(table, load_data(table.data))


def plain_run(study: Study) -> RunSpec:
    """Strength 0 at a constant lr."""
    return tiny_suite(study).templates[CELL.label(0.0)].point(-4.0, 0)


def made_up(
    run: RunSpec, gains: list[float], straightness: list[float], signal: list[float]
) -> Known:
    """A cell whose strength 1 gains so many nats per seed, with log2(e1/e2) and log2(e1/nu)."""
    plain = {seed: 2.0 + seed for seed in range(len(gains))}
    full = {seed: loss - gains[seed] for seed, loss in plain.items()}
    arms = [
        Arm(CELL.label(strength), strength, False, False, Best(-4.0, losses, False))
        for strength, losses in ((0.0, plain), (1.0, full))
    ]
    points = [Point(run.point(-4.0, seed), 3, 32) for seed in range(len(straightness))]
    found = [
        Diagnostic(point, 10.0, 1.0, 2.0**-ratio, 2.0**-clear, 1.0, 1.0, 0.0, 0.0, {}, 0.0)
        for point, ratio, clear in zip(points, straightness, signal, strict=True)
    ]
    return Known(CELL, arms, found, points)
