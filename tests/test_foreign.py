"""Tables of anyone's runs: formats, columns by name, and a rule or an error for every cell."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hptransfer.errors import InputError
from swept import BOTH, csv, read, runs, same

ROWS = runs(BOTH, octaves=(-8, -7, -6), seeds=2)


PLAIN = read(csv(ROWS)).rows


def nested(row: dict[str, Any]) -> dict[str, Any]:
    config = {key: row[key] for key in ("optimizer", "width", "lr", "seed")}
    return {"name": "run", "config": config, "summary": {"val_loss": row["loss"]}}


def decimal_comma(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: str(value).replace(".", ",") if isinstance(value, float) else value
        for key, value in row.items()
    }


FORMS = {
    "TSV": csv(ROWS, "\t").encode(),
    "semicolons and a decimal comma": csv(map(decimal_comma, ROWS), ";").encode(),
    "a byte order mark": csv(ROWS).encode("utf-8-sig"),
    "UTF-16": csv(ROWS).encode("utf-16"),
    "line ends of Windows": csv(ROWS).replace("\n", "\r\n").encode(),
    "no line end at the end": csv(ROWS).rstrip("\n").encode(),
    "empty lines": csv(ROWS).replace("\n", "\n\n").encode(),
    "comments before the names": b"# made by hand\n# twice\n" + csv(ROWS).encode(),
    "spaces": csv(ROWS, ", ").encode(),
    "JSON lines": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "a JSON list": json.dumps(ROWS, indent=1).encode(),
    "nested JSON": "\n".join(json.dumps(nested(row)) for row in ROWS).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_rows(form: str) -> None:
    assert same(read(FORMS[form]).rows, PLAIN)


def test_a_learning_rate_may_be_a_logarithm_or_a_power_of_two() -> None:
    def read_as(name: str, value: Any, **asked: Any) -> pd.DataFrame:
        rows = [{k: v for k, v in row.items() if k != "lr"} for row in ROWS]
        rows = [{**row, name: value(old["lr"])} for row, old in zip(rows, ROWS, strict=True)]
        return read(csv(rows), **asked).rows

    assert same(read_as("log2_lr", np.log2), PLAIN)
    assert same(read_as("log10_lr", lambda lr: round(np.log10(lr), 9)), PLAIN)
    assert same(read_as("lr", lambda lr: f"2^{np.log2(lr):g}"), PLAIN)
    assert same(read_as("x", np.log, lr="x", lr_scale="ln"), PLAIN)
    with pytest.raises(InputError, match="the base of the logarithm"):
        read_as("log_lr", np.log, lr="log_lr")
    with pytest.raises(
        InputError, match=r"line 2, column 'lr': got .*, needs a learning rate"
    ) as e:
        read_as("lr", np.log)
    assert e.value.cures == ("lr_scale",)


def test_columns_have_other_names_and_options_map_any() -> None:
    names = {"width": "n_embd", "lr": "learning_rate", "loss": "eval/loss", "seed": "random_seed",
             "optimizer": "parametrization"}  # fmt: skip
    rows = [{names[key]: value for key, value in row.items()} for row in ROWS]
    found = read(csv(rows))
    assert same(found.rows, PLAIN)
    assert (found.axis, found.columns.loss) == ("n_embd", "eval/loss")
    odd = {"width": "w", "lr": "b", "loss": "c", "seed": "d", "optimizer": "e"}
    rows = [{odd[key]: value for key, value in row.items()} for row in ROWS]
    assert same(read(csv(rows), axis="w", lr="b", loss="c", seed="d", group=["e"]).rows, PLAIN)
    with pytest.raises(InputError, match="no column of learning rates") as caught:
        read(csv(rows))
    assert caught.value.hint == "name it, one of e, w, b, d, c"
    assert caught.value.cures == ("lr",)
    with pytest.raises(InputError, match="lr: there is no column 'bb'"):
        read(csv(rows), lr="bb")


def test_validation_comes_before_training_and_what_is_not_read_is_told() -> None:
    rows = [{**row, "train_loss": 9.0, "val_loss": row["loss"], "loss": 8.0} for row in ROWS]
    found = read(csv(rows))
    assert same(found.rows, PLAIN)
    assert dict(found.taken)["loss"] == "val_loss"
    assert dict(found.taken)["not read"] == "loss, train_loss"


def test_two_columns_of_methods_make_one_label() -> None:
    rows = [{**row, "parametrization": "mup" if row["seed"] else "sp"} for row in ROWS]
    labels = set(read(csv(rows)).rows["optimizer"])
    assert labels == {"adamw/sp", "adamw/mup", "muon/sp", "muon/mup"}
    nested = [{**row, "parametrization": row["optimizer"].upper()} for row in ROWS]
    assert set(read(csv(nested)).rows["optimizer"]) == {"adamw", "muon"}


def test_columns_that_change_with_the_axis_are_told() -> None:
    rows = [{**row, "depth": row["width"] // 32, "tokens": 10 * row["width"]} for row in ROWS]
    found = read(csv(rows))
    assert found.axis == "width"
    assert found.columns.together == ("depth", "tokens")


def test_an_axis_may_have_units_and_any_name() -> None:
    def sized(words: dict[int, str]) -> pd.DataFrame:
        rows = [{**row, "params": words[row["width"]]} for row in ROWS]
        for row in rows:
            del row["width"]
        return read(csv(rows)).rows

    assert set(sized({64: "125M", 256: "1.3B"})["n"]) == {125_000_000, 1_300_000_000}
    with pytest.raises(InputError, match=r"column 'params': '125M' has a unit here and none in"):
        sized({64: "125M", 256: "1300"})
    with pytest.raises(InputError, match="needs a whole number of at least 1"):
        sized({64: "0.5", 256: "1.5"})


@pytest.mark.parametrize("what", ["lr", "width"])
def test_a_wide_table_has_a_column_per_learning_rate_or_axis_value(what: str) -> None:
    frame = pd.DataFrame(ROWS)
    other = ["optimizer", "seed", "width" if what == "lr" else "lr"]
    wide = frame.pivot(index=other, columns=what, values="loss").reset_index()
    plain = read(wide.to_csv(index=False), **({"axis": "width"} if what == "width" else {}))
    assert same(plain.rows, PLAIN)
    named = wide.rename(columns=lambda name: name if isinstance(name, str) else f"{what}={name}")
    assert same(read(named.to_csv(index=False)).rows, PLAIN)
    named.iloc[0, -1] = np.nan
    less = read(named.to_csv(index=False))
    assert len(less.rows) == len(PLAIN) - 1
    assert any("1 empty cell(s) of them: no run" in note for note in less.notes)


def test_accuracies_become_error_rates_in_both_scales() -> None:
    shares = [{**row, "val_acc": 1 - row["loss"] / 10} for row in ROWS]
    percent = [{**row, "val_acc": 100 - 10 * row["loss"]} for row in ROWS]
    for rows in (shares, percent):
        found = read(csv(rows), loss="val_acc", higher_is_better=True)
        assert found.rows["loss"].to_numpy() == pytest.approx(PLAIN["loss"].to_numpy() / 10)
        assert found.unit == "in val_acc"
        assert any("more is better" in note for note in found.notes)
    for row in shares:
        del row["loss"]
    with pytest.raises(InputError, match="no column of losses is found") as caught:
        read(csv(shares))
    assert "where val_acc is better the higher it is" in caught.value.hint
    assert caught.value.cures == ("loss", "higher_is_better")


def test_a_run_without_a_number_diverged_or_is_unfinished_by_a_rule_that_is_told() -> None:
    rows = [dict(row) for row in ROWS]
    rows[0]["loss"], rows[1]["loss"], rows[2]["loss"] = "NaN", "inf", None
    found = read(csv(rows))
    assert found.rows["status"].value_counts().to_dict() == {
        "done": len(rows) - 3, "diverged": 2, "failed": 1,
    }  # fmt: skip
    assert "2 row(s) NaN or inf as a loss: diverged" in found.notes
    assert "1 row(s) no loss: unfinished, left out" in found.notes


def test_a_status_says_how_runs_ended_in_the_words_of_its_tool() -> None:
    words = ["finished", "crashed", "Diverged", "running", "COMPLETE"]
    rows = [{**row, "State": words[i % 5]} for i, row in enumerate(ROWS)]
    status = list(read(csv(rows)).rows.sort_values("line")["status"])[:5]
    assert status == ["done", "failed", "diverged", "failed", "done"]
    rows[3]["State"] = "odd"
    with pytest.raises(InputError, match=r"runs.csv, line 5, column 'State': 'odd' does not say"):
        read(csv(rows))
    flags = [{**row, "diverged": i % 2} for i, row in enumerate(ROWS)]
    assert list(read(csv(flags)).rows.sort_values("line")["status"])[:2] == ["done", "diverged"]


FAULTS: dict[str, tuple[str | bytes, str, str]] = {
    "empty": ("", "runs.csv: is empty", "one line per run"),
    "names alone": ("width,lr,loss\n", "has column names and no rows", "one line per run"),
    "a page": ("<!doctype html>\n<html>", "runs.csv, line 1: this is a page of HTML", "raw"),
    "zipped": (b"PK\x03\x04", "is a compressed file", "unzip"),
    "binary": (b"a,b\n1,\0", "runs.csv, line 2: holds a zero byte", "CSV"),
    "latin-1": (b"width,lr\n\xe9,1\n", "runs.csv, line 2: no utf-8 text at byte 9", "iconv"),
    "a name twice": ("lr,loss,lr\n1,2,3\n", "the columns 1 and 3 are both named 'lr'", "rename"),
    "no names": ("64,0.1,3\n64,0.2,3\n", "holds numbers and no names", "width,lr,seed,loss"),
    "a long line": ("lr,loss\n1,2\n1,2,3\n", "line 3: 3 cells, but there are 2 columns", "quote"),
    "an open quote": ('lr,loss\n"1,2\n1,2\n', "a quote is opened and not closed", "quote"),
    "broken JSON": ('{"lr": 1}\n{"lr": \n', "runs.csv, line 2, column 8", "JSON lines"),
    "a key twice": ('{"lr": 1, "lr": 2}\n', "line 1: an object has the key 'lr' twice", "rename"),
    "JSON of numbers": ("[1, 2]", "runs.csv, line 1: got 1, needs an object", "one object"),
    "text in numbers": (
        "width,lr,loss\n64,0.1,3\n64,fast,3\n256,0.1,3\n",
        "runs.csv, line 3, column 'lr': 'fast' is no number",
        "correct the cell",
    ),
    "commas and points": (
        "width;lr;loss\n64;0,1;3\n256;0.2;3\n",
        "line 2, column 'lr': '0,1' has a decimal comma here and a decimal point in line 3",
        "alike",
    ),
    "thousands": (
        'width,lr,loss\n"1,024",0.1,3\n64,0.1,3\n',
        "line 2, column 'width': '1,024' may hold a decimal comma or separate thousands",
        "without a comma",
    ),
    "lr of zero": (
        "width,lr,loss\n64,0,3\n256,1,3\n",
        "line 2, column 'lr': got 0, needs a learning rate above 0",
        "log2, log10 or ln",
    ),
    "no lr": (
        "width,lr,loss\n64,,3\n256,1,3\n",
        "line 2, column 'lr': is missing or no number, and the run has a result (1 such rows)",
        "fill it in",
    ),
    "no seed": (
        "width,lr,seed,loss\n64,1,0,3\n256,1,,3\n",
        "line 3, column 'seed': no seed is given",
        "fill it in",
    ),
    "minus infinity": (
        "width,lr,loss\n64,1,-inf\n256,1,3\n", "line 2, column 'loss': got minus infinity", "empty"
    ),
    "nothing finite": (
        "width,lr,loss\n64,1,nan\n256,1,nan\n", "no run has a finite loss", "name the column"
    ),
    "two runs alike": (
        "width,lr,seed,loss\n64,1,0,3\n64,1,0,4\n256,1,0,3\n",
        "runs.csv, line 3 and line 2 are the same run (width 64, lr 1, seed 0)",
        "as a seed or as a method",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_its_place_and_a_cure(fault: str) -> None:
    data, message, hint = FAULTS[fault]
    with pytest.raises(InputError) as caught:
        read(data)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_line_is_that_of_the_file_though_cells_hold_line_ends() -> None:
    text = 'width,lr,loss,note\n64,0.1,3,"a\nb"\n64,x,3,"c"\n256,0.1,3,d\n'
    with pytest.raises(InputError, match=r"runs\.csv, line 4, column 'lr'"):
        read(text)


def test_a_row_that_repeats_another_in_every_cell_counts_once() -> None:
    found = read(csv([*ROWS, ROWS[0], ROWS[1]]))
    assert same(found.rows, PLAIN)
    assert "2 row(s) repeat another in every cell and count once" in found.notes


def test_repetitions_without_a_seed_are_seeds() -> None:
    rows = [{key: value for key, value in row.items() if key != "seed"} for row in ROWS]
    found = read(csv(rows))
    assert same(found.rows, PLAIN)
    assert any("they count as seeds, in order" in note for note in found.notes)


def test_the_last_stage_of_a_run_counts() -> None:
    rows = [{**row, "epoch": epoch, "loss": row["loss"] + (3 - epoch)} for row in ROWS
            for epoch in (1, 3, 2)]  # fmt: skip
    found = read(csv(rows))
    assert same(found.rows, PLAIN)
    assert "the last of 3 rows per run counts, by epoch" in found.notes
    rows.append({**rows[1], "loss": 1.0})
    with pytest.raises(InputError, match="line 74 and line 3 are the same run"):
        read(csv(rows))


def test_runs_that_differ_in_another_setting_are_refused_until_it_is_held() -> None:
    rows = [{**row, "weight_decay": decay, "loss": row["loss"] + decay}
            for decay in (0, 0.1) for row in ROWS]  # fmt: skip
    with pytest.raises(InputError, match=r"differs from another run .* 'weight_decay'") as caught:
        read(csv(rows))
    assert "hold it at one value, weight_decay=0.0, or group by it" in caught.value.hint
    assert caught.value.cures == ("hold", "group")
    assert same(read(csv(rows), hold={"weight_decay": "0"}).rows, PLAIN)
    both = read(csv(rows), group=["optimizer", "weight_decay"])
    assert set(both.rows["optimizer"]) == {"adamw/0", "adamw/0.1", "muon/0", "muon/0.1"}
    with pytest.raises(InputError, match="no row has weight_decay = 3"):
        read(csv(rows), hold={"weight_decay": "3"})


def test_seeds_that_are_words_are_numbered() -> None:
    rows = [{**row, "seed": "ab"[row["seed"]]} for row in ROWS]
    found = read(csv(rows))
    assert same(found.rows, PLAIN)
    assert any("numbered as seeds" in note for note in found.notes)


def test_no_row_is_dropped_without_a_word() -> None:
    rows = [dict(row) for row in ROWS]
    rows[0] |= {"lr": None, "loss": None}
    rows[1]["loss"] = None
    found = read(csv(rows))
    assert len(found.rows) == len(ROWS) - 1
    assert "1 unfinished run(s) without lr, axis or label" in found.notes


def test_a_table_that_no_page_can_show_is_refused() -> None:
    rows = [{"width": n, "lr": 0.1, "loss": 3.0} for n in range(1, 110)]
    with pytest.raises(InputError, match="column 'width' has 109 values, at most 100"):
        read(csv(rows))
    rows = [{"width": 64, "lr": 0.1 + 0.0001 * i, "loss": 3.0} for i in range(2100)]
    with pytest.raises(InputError, match="a curve has 2,100 learning rates") as caught:
        read(csv([*rows, {"width": 256, "lr": 0.1, "loss": 3.0}]))
    assert "round column 'lr'" in caught.value.hint


def test_an_export_of_wandb_is_read_as_it_comes() -> None:
    head = '"Name","State","Notes","Runtime","Created","n_embd","learning_rate","seed","eval/loss"'
    lines = [
        f'"run-{i}","{"crashed" if i == 0 else "finished"}","","{60 + i}","2026-01-02",'
        f'"{row["width"]}","{row["lr"]}","{row["seed"]}","{row["loss"] if i else ""}"'
        for i, row in enumerate(ROWS[: len(ROWS) // 2])
    ]
    found = read("\n".join([head, *lines]) + "\n")
    assert (found.axis, found.columns.loss, found.columns.status) == (
        "n_embd", "eval/loss", "State",
    )  # fmt: skip
    assert found.rows["status"].value_counts().to_dict() == {"done": 11, "failed": 1}
    assert "1 row(s) unfinished by State: left out" in found.notes


def test_a_label_that_a_figure_would_hide_is_quoted() -> None:
    rows = [{**row, "optimizer": f"_{row['optimizer']}"} for row in ROWS]
    assert set(read(csv(rows)).rows["optimizer"]) == {"'_adamw'", "'_muon'"}
