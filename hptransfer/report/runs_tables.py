"""The tables of the runs themselves: how they ended, where they ran, one by one."""

import json
from typing import Any

import pandas as pd

from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import axis_name, describe_hp, power_of_two
from hptransfer.report.cells import DASH, Cell, Table, count, duration, nat, number, word


def outcomes(suite: Question, rows: pd.DataFrame) -> Table:
    """One row per optimizer and axis value."""
    counts = rows.groupby(["optimizer", "n", "status"], observed=True).size().unstack(fill_value=0)
    body = []
    for key, row in counts.iterrows():
        label, n = key  # type: ignore[misc]
        ended = [count(int(row.get(status, 0))) for status in ("done", "diverged", "failed")]
        body.append([word(label, "head"), count(n), *ended])
    return Table(
        "How the runs ended",
        ("optimizer", axis_name(suite), "done", "diverged", "failed"),
        body,
        "A diverged run counts as the loss at init and is drawn at the roof; a failed one (an "
        "error, not a loss) is left out and named.",
    )


def environment(rows: pd.DataFrame) -> Table:
    """One row per combination of device, versions and threads that made records."""
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
        body.append([*(word(part) for part in key), word(spread), count(len(runs)), word(last)])
    columns = (
        "device", "hptransfer", "torch", "python", "git", "threads", "lanes", "runs",
        "last finished (UTC)",
    )  # fmt: skip
    return Table("Environment", columns, body)


def runs(table: pd.DataFrame, limit: int) -> Table:
    """One row per run, the first `limit` of them. A run that was made elsewhere has a line."""
    own = "key" in table
    last = ("seconds", "key") if own else ("source", "line")
    names = ("optimizer", "n", "log2_lr", "seed", "status", "loss", *last)
    records: list[Any] = list(table.head(limit).itertuples())
    rows = [
        [
            word(row.optimizer, "head"),
            count(row.n),
            number(row.log2_lr, power_of_two(row.log2_lr), describe_hp(json.loads(row.hp_point))),
            count(row.seed),
            word(row.status, f"v {row.status}" if row.status != "done" else ""),
            nat(row.loss, 4),
            *((duration(row.seconds), word(row.key, "code")) if own else _place(row)),
        ]
        for row in records
    ]
    note = ""
    if len(table) > limit:
        held = "runs.csv" if own else "the table that was read"
        note = f"The first {limit} of {len(table)} runs; {held} holds all of them."
    return Table("Runs", names, rows, note)


def _place(row: Any) -> tuple[Cell, Cell]:
    """The source of a run that was made elsewhere, and its line there."""
    return word(row.source), count(row.line)
