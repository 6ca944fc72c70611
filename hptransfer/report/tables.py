"""The tables of the report: numbers to text, with a value to sort by."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hptransfer.analysis.metrics import Groups
from hptransfer.analysis.verdicts import axis_word, describe_hp, power, signed
from hptransfer.spec import RunSpec
from hptransfer.suite.claim import Suite

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """What a cell shows, what it sorts by, its CSS class, and a small second line."""

    text: str
    sort: float | str = ""
    css: str = ""
    under: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    note: str = ""


def word(text: object, css: str = "") -> Cell:
    return Cell(str(text), str(text), css)


def number(value: float, text: str, under: str = "") -> Cell:
    """A number; a dash where it was not measured."""
    if not math.isfinite(value):
        return Cell(DASH, math.inf, "num")
    return Cell(text, value, "num", under)


def nat(value: float, digits: int = 3) -> Cell:
    return number(value, signed(value, digits))


def octave(value: float, se: float = math.nan) -> Cell:
    return number(value, f"2^{value:.2f}", f"± {se:.2f}" if math.isfinite(se) else "")


def between(value: float, low: float, high: float, digits: int = 3) -> Cell:
    """A number over its interval."""
    bounds = "no interval"
    if math.isfinite(low) and math.isfinite(high):
        bounds = f"{signed(low, digits)} to {signed(high, digits)}"
    return number(value, signed(value, digits), bounds)


def scaled(value: float, unit: str) -> Cell:
    """`1.2 MB`: three digits and a prefix."""
    rank = min(max(int(math.log(value, 1000)), 0), 6) if 0 < value < math.inf else 0
    return number(
        value, f"{value / 1000**rank:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[rank]}{unit}"
    )


def duration(seconds: float) -> Cell:
    if not seconds >= 1:
        return number(seconds, f"{seconds * 1000:.3g} ms")
    if seconds < 120:
        return number(seconds, f"{seconds:.3g} s")
    if seconds < 7200:
        return number(seconds, f"{seconds / 60:.3g} min")
    return number(seconds, f"{seconds / 3600:.3g} h")


def _lines(table: pd.DataFrame) -> Iterator[Any]:
    """Rows whose fields are attributes, of whatever type their column has."""
    return table.itertuples()


def _verdict(row: Any) -> Cell:
    under = "indicative" if row.indicative else ""
    return Cell(row.verdict, row.verdict, f"v {row.verdict}", under)


def transfer(suite: Suite, pairs: pd.DataFrame) -> Table:
    axis = axis_word(suite)
    rows = [
        [
            word(row.optimizer, "head"),
            number(row.n, str(row.n)),
            _verdict(row),
            octave(row.lr_star_proxy, row.se_proxy),
            octave(row.lr_star_n, row.se_n),
            between(row.drift, row.drift_low, row.drift_high, 2),
            between(row.regret, row.regret_low, row.regret_high),
            number(row.relative_regret, f"{signed(100 * row.relative_regret, 2)} %"),
            nat(row.noise_floor, 4),
            number(row.n_seeds, str(row.n_seeds)),
            nat(row.best_loss),
            nat(row.carried_loss),
            duration(row.seconds_per_step),
            scaled(row.peak_memory, "B"),
        ]
        for row in _lines(pairs)
    ]
    columns = (
        "optimizer", axis, "verdict", f"lr* at {suite.proxy}", "lr* at target",
        "drift, octaves", "regret, nat", "regret, %", "noise floor, nat", "seeds", "best loss",
        "loss at carried lr", "time a step", "peak memory",
    )  # fmt: skip
    return Table(
        "Transfer",
        columns,
        rows,
        "The second line of a cell is its standard error (±) or its 95% interval. "
        "The best loss is the mean over fresh seeds at lr*, or the "
        "minimum over the search where no fresh seed ran there. Time is the run's share of device "
        "time; memory that of the whole unit, all its lanes together.",
    )


def landscape(suite: Suite, table: pd.DataFrame) -> Table:
    rows = []
    for row in _lines(table):
        flags = [f"censored {row.censored}"] if isinstance(row.censored, str) else []
        if row.cliff is True:
            flags.append("cliff")
        open_end = "≥ " if row.basin_open is True else ""
        rows.append(
            [
                word(row.optimizer, "head"),
                number(row.n, str(row.n)),
                octave(row.log2_lr, row.se),
                word(", ".join(flags)),
                word(describe_hp(row.hp)),
                nat(row.loss),
                nat(row.sensitivity),
                nat(row.sensitivity_relative),
                number(row.basin, f"{open_end}{row.basin:.1f}"),
                number(row.n_points, str(row.n_points)),
                number(row.n_search, str(row.n_search)),
                number(row.n_diverged, str(row.n_diverged)),
                number(row.n_failed, str(row.n_failed)),
            ]
        )
    columns = (
        "optimizer", axis_word(suite), "lr*", "flags", "searched", "lowest loss",
        "lr sensitivity, start range", "lr sensitivity, ±2 octaves", "basin, octaves",
        "learning rates", "runs", "diverged", "failed",
    )  # fmt: skip
    return Table(
        "Optimum and shape of each curve",
        columns,
        rows,
        "lr sensitivity is the mean of min(L, loss at init) − L* over a log-uniform range, given "
        "only where the whole range was tried (Wortsman et al. 2023, arXiv:2309.14322). The basin "
        "is where L ≤ min + max(0.01, 2 sigma). cliff: a neighbour diverged or learned nothing, so "
        "the grid point stands, ± 0.25. With one search seed the ± is the grid's own, step / √12, "
        "which knows no seed noise: a drift then has no interval.",
    )


def exponents(table: pd.DataFrame) -> Table:
    rows = [
        [
            word(row.optimizer, "head"),
            between(row.exponent, row.low, row.high, 2),
            number(row.n_values, str(row.n_values)),
            word(row.left_out or "none"),
        ]
        for row in _lines(table)
    ]
    return Table(
        "Exponent of lr*",
        ("optimizer", "exponent", "values used", "left out (censored)"),
        rows,
        "Slope of −log2 lr* against log2 n with its 95% interval; 0 is ideal.",
    )


def cost(suite: Suite, pairs: pd.DataFrame) -> Table:
    rows = [
        [
            word(row.optimizer, "head"),
            number(row.n, str(row.n)),
            scaled(row.tuning_flops, "FLOP"),
            scaled(row.direct_flops, "FLOP"),
            number(row.saving_flops, f"{row.saving_flops:.1f} ×"),
            duration(row.tuning_seconds),
            duration(row.direct_seconds),
            number(row.saving_seconds, f"{row.saving_seconds:.1f} ×"),
            scaled(row.tokens_per_second, "/s"),
            scaled(row.flops_per_second, "FLOP/s"),
        ]
        for row in _lines(pairs)
    ]
    columns = (
        "optimizer", axis_word(suite), f"tuning at {suite.proxy}", "tuning directly", "saving",
        f"time at {suite.proxy}", "time directly", "saving in time", "tokens or examples",
        "model FLOPs",
    )  # fmt: skip
    return Table(
        "Cost",
        columns,
        rows,
        "Tuning directly is priced at as many trials as the proxy took, at the mean cost of the "
        "runs that were made there. Utilisation is not given, since the peak of the device is not "
        "recorded; FLOP/s are.",
    )


def audit(suite: Suite, table: pd.DataFrame) -> Table:
    def mark(row: Any) -> Cell:
        said = [t for t, on in (("optima differ", row.differs), ("verdict", row.changes)) if on]
        return word(", ".join(said) or "agree", "flag" if said else "")

    rows = [
        [
            word(row.optimizer, "head"),
            number(row.n, str(row.n)),
            octave(row.loss),
            octave(row.train_loss),
            octave(row.train_mean),
            mark(row),
        ]
        for row in _lines(table)
    ]
    return Table(
        "Metric audit",
        (
            "optimizer", axis_word(suite), "by evaluation loss", "by late training loss",
            "by mean training loss", "flag",
        ),
        rows,
        f"Flagged where the optima lie more than {suite.thresholds.drift:g} octaves apart, or "
        "where the loss used decides whether the drift exceeds that.",
    )  # fmt: skip


def outcomes(suite: Suite, rows: pd.DataFrame) -> Table:
    counts = rows.groupby(["optimizer", "n", "stage", "status"]).size().unstack(fill_value=0)
    body = []
    for key, row in counts.iterrows():
        label, n, stage = key  # type: ignore[misc]
        found = [int(row.get(status, 0)) for status in ("done", "diverged", "failed")]
        body.append(
            [word(label, "head"), number(n, str(n)), word(stage)]
            + [number(value, str(value)) for value in found]
        )
    return Table(
        "How the runs ended",
        ("optimizer", axis_word(suite), "stage", "done", "diverged", "failed"),
        body,
        "A diverged run counts as the loss at init and is drawn at the roof; a failed one (an "
        "error, not a loss) is left out and named.",
    )


def environment(rows: pd.DataFrame) -> Table:
    """One line for every combination of device, versions and threads that made records."""
    seen: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    made = zip(
        rows["device"], rows["threads"], rows["env"], rows["lanes"], rows["finished"], strict=True
    )
    for device, threads, env, lanes, finished in made:
        versions = env.get("versions", {})
        key = (
            str(device),
            *(str(versions.get(name, DASH)) for name in ("hptransfer", "torch", "python")),
            str(env.get("git") or DASH),
            str(threads),
        )
        seen.setdefault(key, []).append((lanes, finished))
    body = []
    for key, runs in sorted(seen.items()):
        lanes = sorted({lane for lane, _ in runs})
        spread = str(lanes[0]) if len(lanes) == 1 else f"{lanes[0]} to {lanes[-1]}"
        last = pd.Timestamp(max(f for _, f in runs), unit="s").strftime("%Y-%m-%d %H:%M")
        body.append(
            [*(word(part) for part in key), word(spread), number(len(runs), str(len(runs))),
             word(last)]
        )  # fmt: skip
    columns = (
        "device", "hptransfer", "torch", "python", "git", "threads", "lanes", "runs",
        "last finished (UTC)",
    )  # fmt: skip
    return Table("Environment", columns, body)


def _evaluated(spec: RunSpec) -> str:
    context = spec.model.get("context")
    if context:
        return f"{spec.eval_batches * spec.batch * context:,} tokens"
    return f"{spec.eval_batches * spec.batch:,} examples"


def fairness(suite: Suite, parts: Groups) -> Table:
    """Settings by optimizer; a setting that is not the same for all carries a mark."""
    labels = list(suite.templates)
    specs = {label: suite.template(label) for label in labels}

    def counted(label: str, stage: str, column: str) -> str:
        found = [
            f"{part[column].nunique()} at {n}"
            for (o, n, s), part in sorted(parts.items())
            if o == label and s == stage
        ]
        return ", ".join(found) or "none yet"

    settings: dict[str, list[str]] = {
        "function": [str(specs[x].optimizer["name"]) for x in labels],
        "revision": [str(specs[x].optimizer["revision"]) for x in labels],
        "weights at init": [f"by {specs[x].optimizer['name']}" for x in labels],
        "lr start range": [suite.optimizers[x].lr.text for x in labels],
        "schedule": [specs[x].schedule for x in labels],
        "warm-up, % of steps": [f"{100 * specs[x].warmup:g}" for x in labels],
        "gradient clipping": [f"{specs[x].clip:g}" if specs[x].clip else "none" for x in labels],
        "precision": [specs[x].precision for x in labels],
        "steps": [str(specs[x].steps) for x in labels],
        "batch": [str(specs[x].batch) for x in labels],
        "evaluation": [_evaluated(specs[x]) for x in labels],
        "sampler": [str(suite.setting(x, "sampler")) for x in labels],
        "trials at most": [str(suite.setting(x, "trials")) for x in labels],
        "learning rates tried": [counted(x, "search", "log2_lr") for x in labels],
        "search seeds": [counted(x, "search", "seed") for x in labels],
        "fresh seeds": [counted(x, "fresh", "seed") for x in labels],
        "searched besides lr": [_searched(suite, x) for x in labels],
    }
    for key in sorted({key for spec in specs.values() for key in spec.hp}):
        settings[f"hp: {key}"] = [_plain(specs[x].hp.get(key, DASH)) for x in labels]
    rows = [
        [
            word(name, "head"),
            word("differs" if len(set(values)) > 1 else "", "flag"),
            *(word(value) for value in values),
        ]
        for name, values in settings.items()
    ]
    return Table("Fairness", ("setting", "", *labels), rows)


def _searched(suite: Suite, label: str) -> str:
    found = suite.optimizers[label].search
    return ", ".join(f"{key} in {values}" for key, values in found.items()) or "nothing"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def runs(table: pd.DataFrame, limit: int) -> Table:
    names = ("optimizer", "n", "stage", "log2_lr", "seed", "status", "loss", "seconds", "key")
    rows = [
        [
            word(row.optimizer, "head"),
            number(row.n, str(row.n)),
            word(row.stage),
            number(row.log2_lr, power(row.log2_lr)),
            number(row.seed, str(row.seed)),
            word(row.status, f"v {row.status}" if row.status != "done" else ""),
            nat(row.loss, 4),
            duration(row.seconds),
            word(row.key, "code"),
        ]
        for row in _lines(table.head(limit))
    ]
    note = ""
    if len(table) > limit:
        note = f"The first {limit} of {len(table)} runs; runs.csv holds all of them."
    return Table("Runs", names, rows, note)


def shared(suite: Suite) -> list[tuple[str, str]]:
    """What every run of the suite has in common, for the head of the fairness section."""

    def fields(values: dict[str, Any], leave: Iterable[str] = ()) -> str:
        kept = {k: v for k, v in values.items() if k not in ("name", *leave)}
        listed = ", ".join(
            f"{k} {json.dumps(v) if isinstance(v, list | dict) else _plain(v)}"
            for k, v in kept.items()
        )
        return f"{values['name']} ({listed})" if listed else str(values["name"])

    first = suite.template(next(iter(suite.templates)))
    depth = ("n_layer",) if suite.axis == "depth" else ()
    return [
        ("model", fields(first.model, depth)),
        ("data", fields(first.data)),
        ("base", ", ".join(f"{k} {v}" for k, v in suite.base.items()) or "none"),
        ("axis", f"{axis_word(suite)}: proxy {suite.proxy}, targets {suite.targets or 'none'}"),
    ]
