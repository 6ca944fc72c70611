"""Sections -> metrics.json and runs.csv: what the report says, for machines."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from hptransfer.analysis.frame import belonging
from hptransfer.analysis.landscape import Exponent, Landscape
from hptransfer.analysis.optimum import Optimum
from hptransfer.analysis.sentences import sentence
from hptransfer.analysis.transfer import Transfer, targets
from hptransfer.report.section import Section, newest_first
from hptransfer.spec import canonical
from hptransfer.suite.resolved import Suite

CSV_COLUMNS = (
    "optimizer", "n", "stage", "width", "batch", "steps", "log2_lr", "lr", "seed", "status",
    "loss", "train_loss", "train_mean", "loss_init", "hp_point", "seconds", "flops",
    "peak_memory", "tokens", "device", "lanes", "threads", "hptransfer", "torch", "python", "git",
    "finished", "error", "cell", "key",
)  # fmt: skip

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def metrics_json(sections: Sequence[Section]) -> dict[str, Any]:
    """{"schema": 1, "suites": [...]}, newest first; null for what was not measured."""
    suites = [_section(section) for section in newest_first(sections)]
    return {"schema": 1, "suites": _plain(suites)}


def _plain(value: Any) -> Any:
    """Plain JSON values; a number that is not finite is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _section(section: Section) -> dict[str, Any]:
    suite = section.suite
    return {
        "suite": suite.name,
        "claim": suite.claim,
        "axis": suite.axis,
        "proxy": suite.proxy,
        "targets": targets(suite, section.rows),
        "thresholds": suite.thresholds.model_dump(),
        "runs": {
            "found": section.n_finished,
            "expected": section.n_expected,
            "missing": list(section.missing),
        },
        "negative_control": {
            "label": suite.negative_control,
            "shown": section.control.shown,
            "sentence": section.control.sentence,
        },
        "pairs": [_transfer(suite, each) for each in section.transfers],
        "optima": [_landscape(each) for each in section.landscapes],
        "exponents": [_exponent(each) for each in section.exponents],
        "audit": [dataclasses.asdict(each) for each in section.audits],
    }


def _transfer(suite: Suite, each: Transfer) -> dict[str, Any]:
    at_proxy, at_target = each.at_proxy, each.at_target
    return {
        "optimizer": each.optimizer,
        "proxy": each.proxy,
        "n": each.n,
        "verdict": each.verdict,
        "indicative": each.indicative,
        "sentence": sentence(suite, each),
        "lr_star_proxy": at_proxy.log2_lr if at_proxy else None,
        "se_proxy": at_proxy.se if at_proxy else None,
        "lr_star_n": at_target.log2_lr if at_target else None,
        "se_n": at_target.se if at_target else None,
        "lr_carried": each.carried.log2_lr,
        "lr_own": each.own.log2_lr,
        "hp": at_proxy.hp if at_proxy else {},
        "drift": each.drift.value,
        "drift_low": each.drift.low,
        "drift_high": each.drift.high,
        "regret": each.regret.value,
        "regret_low": each.regret.low,
        "regret_high": each.regret.high,
        "relative_regret": each.relative_regret,
        "noise_floor": each.noise_floor,
        "n_seeds": each.n_seeds,
        "best_loss": each.best_loss,
        "carried_loss": each.carried.mean,
        **dataclasses.asdict(each.cost),
        "saving_flops": each.cost.saving_flops,
        "saving_seconds": each.cost.saving_seconds,
    }


def _landscape(each: Landscape) -> dict[str, Any]:
    best, basin = each.optimum, each.basin
    return {
        "optimizer": each.optimizer,
        "n": each.n,
        **_optimum(best),
        "n_points": each.n_points,
        "n_search": each.n_search,
        "n_diverged": each.n_diverged,
        "n_failed": each.n_failed,
        "hp": canonical(best.hp) if best else "{}",
        "sensitivity": basin.sensitivity if basin else None,
        "sensitivity_relative": basin.relative if basin else None,
        "basin": basin.width if basin else None,
        "basin_open": basin.is_open if basin else None,
        "eps": basin.eps if basin else None,
    }


def _optimum(best: Optimum | None) -> dict[str, Any]:
    names = ("log2_lr", "se", "cliff", "censored", "loss")
    return {name: getattr(best, name) if best else None for name in names}


def _exponent(each: Exponent) -> dict[str, Any]:
    return {
        "optimizer": each.optimizer,
        "exponent": each.value,
        "low": each.low,
        "high": each.high,
        "n_values": each.n_values,
        "left_out": ", ".join(map(str, each.left_out)),
    }


def runs_table(suite: Suite, frame: pd.DataFrame) -> pd.DataFrame:
    """The records of the suite for runs.csv: flat columns, log2_lr exact, sorted."""
    return flat(belonging(suite, frame))


def flat(rows: pd.DataFrame) -> pd.DataFrame:
    """Selected rows with the columns of runs.csv, sorted."""
    versions = [env.get("versions", {}) for env in rows["env"]]
    table = rows.assign(
        lr=2.0 ** rows["log2_lr"].astype(float),
        git=[env.get("git") for env in rows["env"]],
        **{name: [v.get(name) for v in versions] for name in ("hptransfer", "torch", "python")},
    )
    table = table[list(CSV_COLUMNS)]
    return table.sort_values(["optimizer", "n", "stage", "log2_lr", "seed"], ignore_index=True)


def runs_csv(rows: pd.DataFrame) -> str:
    """Text of runs.csv: an apostrophe stands before each cell that a spreadsheet would compute."""

    def cell(value: object) -> object:
        formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        return f"'{value}" if formula and not _NUMBER.fullmatch(str(value)) else value

    table = flat(rows)
    texts = [name for name in table.columns if not is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(cell) for name in texts}).to_csv(index=False)
