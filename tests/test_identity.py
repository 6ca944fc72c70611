"""Keys, cells, study names and manifests: a stored thing keeps its name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from frames import make_suite, record, to_frame
from hptransfer.analysis.frame import select
from hptransfer.search.studies import study_name
from hptransfer.spec import SCHEMA, RunSpec
from hptransfer.suite.manifest import as_manifest, stored_suite
from hptransfer.suite.ranges import value_range
from hptransfer.suite.resolved import Suite, resolve
from hptransfer.train.engine import load_data

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
RECORDS = sorted(REFERENCE.rglob("records-*.jsonl"))
MANIFESTS = sorted(REFERENCE.rglob("suite.json"))


def name(path: Path) -> str:
    return str(path.parent.relative_to(REFERENCE))


def test_there_are_reference_records_and_manifests() -> None:
    assert len(RECORDS) >= 9
    assert len(MANIFESTS) >= 9


@pytest.mark.parametrize("path", RECORDS, ids=name)
def test_every_key_and_cell_of_the_reference_records_is_that_of_its_spec(path: Path) -> None:
    for line in path.read_text().splitlines():
        stored = json.loads(line)
        spec = RunSpec.from_json(stored["spec"])
        assert (stored["key"], stored["cell"]) == (spec.key, spec.cell)


@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_a_manifest_is_written_as_it_was_read_and_as_its_suite_resolves(path: Path) -> None:
    text = path.read_text()
    stored = json.loads(text)
    schema = stored.pop("schema")
    suite = stored_suite(stored, schema)
    if schema == SCHEMA:
        assert json.dumps({"schema": schema, **as_manifest(suite)}, indent=1) + "\n" == text
        again = resolve(suite, load_data(suite.data))
        assert as_manifest(again.model_copy(update={"ngrams": suite.ngrams})) == stored
    else:
        runs = {label: run.to_json() for label, run in suite.templates.items()}
        assert runs == stored["templates"], "and so its records belong to it"


def searching(text: str) -> Suite:
    suite = make_suite("muon")
    table = suite.optimizers["muon"].model_copy(update={"search": {"beta": value_range(text)}})
    return suite.model_copy(update={"optimizers": {"muon": table}})


def test_the_name_of_a_study_stays_as_it_is() -> None:
    """Names since schema 2. The name of a study depends on the text of its ranges."""
    assert study_name(make_suite("muon"), "muon", 64) == "made_up/muon/width=64/f2c6f92c"
    assert study_name(searching("0.80..0.95"), "muon", 64) == "made_up/muon/width=64/32ee24c0"
    assert study_name(searching("0.8..0.95"), "muon", 64) != "made_up/muon/width=64/32ee24c0"
    assert searching("0.80..0.95").template("muon", 64).cell == "f2c6f92c02cc853b283e"


def test_an_identity_leaves_out_fields_and_keys_of_tables_and_nothing_else() -> None:
    run = make_suite("muon").template("muon", 32)
    other = replace(run.at("depth", 6), steps=7, hp={"beta": 0.5})
    left_out = ("model.n_layer", "steps", "hp.beta")
    assert run.identity(*left_out) == other.identity(*left_out)
    for name in left_out:
        fewer = [field for field in left_out if field != name]
        assert run.identity(*fewer) != other.identity(*fewer)
    assert run.identity() == run.key != run.identity("seed")


def test_a_field_that_no_run_has_is_no_field_to_leave_out() -> None:
    with pytest.raises(KeyError, match="stepps"):
        make_suite("muon").template("muon").identity("stepps")


def test_the_fields_of_a_lane_are_lr_seed_and_the_real_valued_hyperparameters() -> None:
    run = replace(make_suite("muon").template("muon"), hp={"beta": 0.9, "steps": 5, "on": True})
    assert run.lane_fields == ("log2_lr", "seed", "hp.beta")


def test_a_run_belongs_to_each_label_that_it_could_have_been_made_for() -> None:
    suite = make_suite("muon", "adamw")
    muon, adamw = suite.templates["muon"], suite.templates["adamw"]
    twin = suite.model_copy(update={"templates": {"muon": muon, "adamw": adamw, "also": muon}})
    twin = twin.model_copy(
        update={"optimizers": {**suite.optimizers, "also": suite.optimizers["muon"]}}
    )
    runs = [muon.at("width", 64).point(-3, 5), adamw, replace(adamw, steps=7)]
    assert list(twin.labels(runs)) == [["muon", "also"], ["adamw"], []]
    assert twin.names(runs[1:]) == {adamw.key: ("adamw", 32)}


def test_a_run_without_a_searched_value_belongs_to_no_search_of_it() -> None:
    suite = searching("0.8..0.95")
    run = suite.template("muon").point(-3, 0, beta=0.85)
    others = [replace(run, hp={}), replace(run, hp={"beta": "0.9"})]
    assert list(suite.labels([run, *others])) == [["muon"], [], []]
    rows = select(suite, to_frame(record(each, 32, -5) for each in [run, *others]))
    assert rows["hp_point"].tolist() == ['{"beta":0.85}']
