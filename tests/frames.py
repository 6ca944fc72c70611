"""Made-up suites and records: a parabola in log2 lr with a cliff, no training."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd

from hptransfer.analysis.optimum import optimum
from hptransfer.spec import RunSpec
from hptransfer.suite.file import parse_suite
from hptransfer.suite.ranges import LR_OCTAVES
from hptransfer.suite.resolved import Suite

LOSS_INIT = 5.5
Center = Callable[[int], float]

COLUMNS = [
    "key", "cell", "spec", "width", "batch", "steps", "log2_lr", "seed", "status", "loss",
    "train_loss", "train_mean", "loss_init", "seconds", "flops", "peak_memory", "tokens", "device",
    "lanes", "threads", "env", "curve", "probes", "finished", "error",
]  # fmt: skip


def make_suite(*labels: str, **overrides: Any) -> Suite:
    """A suite of the labels with hand-made templates, without a look at any source."""
    labels = labels or ("adamw", "muon", "scion_unconstrained", "transported_scion")
    table = {
        "name": "made_up",
        "claim": "AdamW-SP's best lr drifts between width 32 and 128; the others hold",
        "model": {"name": "gpt", "n_layer": 2, "head_size": 32, "context": 64},
        "data": "python_source",
        "base": {"width": 32},
        "proxy": 32,
        "targets": [128],
        "steps": 100,
        "batch": 16,
        "optimizers": {
            label: {"lr": "2^-11..2^-4"} | ({"warmup": 0.1, "clip": 1.0} if i == 0 else {})
            for i, label in enumerate(labels)
        },
    }
    suite = parse_suite(table, overrides)
    templates = {
        label: RunSpec(
            model={"revision": 1, **suite.model},
            data={**suite.data, "revision": 1, "sha256": "7131b323"},
            optimizer={"name": label, "revision": 1},
            hp={"beta": 0.9} | ({"transport": 0.5} if "transported" in label else {}),
            width=suite.width or suite.proxy,
            base=suite.base,
            log2_lr=0.0,
            steps=suite.steps or 1,
            batch=suite.batch,
            schedule=suite.setting(label, "schedule"),
            warmup=suite.setting(label, "warmup"),
            clip=suite.setting(label, "clip"),
            precision=suite.precision,
            eval_examples=64,
            seed=0,
        )
        for label in suite.optimizers
    }
    return Suite.of(suite, templates, dict.fromkeys(suite.optimizers, LR_OCTAVES))


def made_up_loss(spec: RunSpec, n: int, center: float, noise: float) -> float:
    """2.6 - 0.1 log2(n/32) + 0.08 (octaves from center)^2 and noise, nats.

    The noise is the sum of a part per seed, equal at all lr and widths, and a smaller part per run.
    """
    own = np.random.default_rng([spec.seed, int(900 + 8 * spec.log2_lr), n]).normal()
    shared = np.random.default_rng(spec.seed).normal()
    bowl = 2.6 - 0.1 * np.log2(n / 32) + 0.08 * (spec.log2_lr - center) ** 2
    return float(bowl + noise * (shared + 0.5 * own))


class How(TypedDict, total=False):
    """The keywords of `record`."""

    noise: float
    cliff: float
    status: str | None
    device: str


def record(
    spec: RunSpec,
    n: int,
    center: float,
    *,
    noise: float = 0.004,
    cliff: float = 3.5,
    status: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """One row with a made-up loss; a run more than `cliff` octaves above the center diverged."""
    loss = made_up_loss(spec, n, center, noise)
    status = status or ("diverged" if spec.log2_lr - center > cliff else "done")
    done = status == "done"
    steps = np.linspace(0, spec.steps, 11)[1:]
    curve = [[float(s), float(loss + (LOSS_INIT - loss) * np.exp(-4 * s / spec.steps))]
             for s in steps]  # fmt: skip
    return {
        "key": spec.key,
        "cell": spec.cell,
        "spec": spec.to_json(),
        "width": spec.width,
        "batch": spec.batch,
        "steps": spec.steps,
        "log2_lr": spec.log2_lr,
        "seed": spec.seed,
        "status": status,
        "loss": loss if done else (np.inf if status == "diverged" else np.nan),
        "train_loss": loss - 0.03 if done else np.nan,
        "train_mean": loss + 0.5 if done else np.nan,
        "loss_init": LOSS_INIT,
        "seconds": 0.9 * (n / 32) ** 1.5,
        "flops": 4e10 * (n / 32) ** 2,
        "peak_memory": int(3e8 * n / 32),
        "tokens": spec.batch * spec.steps * 64,
        "device": device,
        "lanes": max(1, 128 // n),
        "threads": 1,
        "env": {
            "versions": {"python": "3.11.9", "torch": "2.13.0", "hptransfer": "0.1.0"},
            "git": "0123abc",
            "host": "made-up",
            "started": 1.7e9,
        },
        "curve": curve if done else curve[:3],
        "probes": {},
        "finished": 1.7e9 + spec.seed,
        "error": "out of memory" if status == "failed" else "",
    }


def to_frame(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(records), columns=COLUMNS)


def search(
    suite: Suite,
    label: str,
    n: int,
    center: float,
    grid: Iterable[float],
    seeds: Iterable[int] = (0,),
    **how: Unpack[How],
) -> list[dict[str, Any]]:
    """Records of a label at n over a grid of log2 lr."""
    seeds = list(seeds)
    return [
        record(suite.template(label, n).point(x, seed), n, center, **how)
        for x in grid
        for seed in seeds
    ]


def half_octaves(center: float, reach: int = 3) -> list[float]:
    """Whole octaves around the center, half octaves near it, as the bracket sampler tries them."""
    middle = round(center)
    near = [middle - 0.5, middle + 0.5]
    return sorted([*map(float, range(middle - reach, middle + reach + 1)), *near])


def study(
    suite: Suite,
    centers: dict[str, Center],
    *,
    seeds: int = 3,
    verify: bool = True,
    widths: Iterable[int] | None = None,
    **how: Unpack[How],
) -> pd.DataFrame:
    """A search at every width, on all seeds near its minimum and at the carried lr of a target."""
    records: list[dict[str, Any]] = []
    for label, center in centers.items():
        carried = None
        for n in widths or [suite.proxy, *suite.targets]:
            tried: dict[str, dict[str, Any]] = {}
            if n == suite.proxy or verify:
                made = search(suite, label, n, center(n), half_octaves(center(n)), **how)
                tried |= {run["key"]: run for run in made}
                best = optimum(to_frame(made).assign(hp_point="{}"))
                assert best is not None
                middle = round(2 * best.log2_lr) / 2
                near = [middle + step / 2 for step in (-2, -1, 0, 1, 2)]
                made = search(suite, label, n, center(n), near, range(seeds), **how)
                tried |= {run["key"]: run for run in made}
            if n == suite.proxy:
                best = optimum(to_frame(tried.values()).assign(hp_point="{}"))
                assert best is not None
                carried = suite.clip_lr(label, best.log2_lr)
            elif carried is not None:
                made = search(suite, label, n, center(n), [carried], range(seeds), **how)
                tried |= {run["key"]: run for run in made}
            records += tried.values()
    return to_frame(records)


CENTERS: dict[str, Center] = {
    "adamw": lambda n: -6.0 - float(np.log2(n / 32)),
    "muon": lambda n: -5.2,
    "scion_unconstrained": lambda n: -4.1 - 0.1 * float(np.log2(n / 32)),
    "transported_scion": lambda n: -4.9,
}


def many(suite: Suite, count: int) -> pd.DataFrame:
    """About `count` records of the study over many seeds, for a timing."""
    frame = study(suite, CENTERS)
    copies = count // len(frame) + 1
    made = []
    for copy in range(copies):
        for row in frame.to_dict("records"):
            spec = replace(RunSpec.from_json(row["spec"]), seed=row["seed"] + 3 * copy)
            made.append({**row, "seed": spec.seed, "spec": spec.to_json(), "key": spec.key})
            if len(made) == count:
                return to_frame(made)
    return to_frame(made)
