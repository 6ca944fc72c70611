"""The tails command: table, file, the learning rate it takes, and wrong input."""

import tomllib
from pathlib import Path

import pytest

from commanded import hptransfer
from test_documents import follows, strict

QUICK = ("--pairs", 100, "--quiet")


@pytest.fixture
def folder(suite: Path) -> Path:
    """A folder with tiny.toml, `commanded.SUITE`."""
    return suite.parent


def test_tails_prints_a_row_per_layer_and_moment_and_what_misleads(folder: Path) -> None:
    done = hptransfer("tails", "tiny.toml", "--pairs", 100, cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tiny: adamw, width 8, lr 2^-6 (middle of the range), 100 pairs")
    places = [line.split()[-8:] for line in lines if line.startswith("embedding ")]
    assert len(places) == 6  # steps 0, 2 and 3, one example and two
    assert sum(line.startswith("adamw, single examples: of 24 layers") for line in lines) == 1
    assert sum(line.startswith("adamw, batches of 2: of 24 layers") for line in lines) == 1
    assert "no verdict rests on it" in done.stdout
    assert max(map(len, lines[: lines.index(next(x for x in lines if "of 24" in x))])) <= 100
    assert "[24/24] adamw step 3, batch 2: 100 pairs" in done.stderr


def test_the_file_and_the_printed_json_are_one_document_that_follows_its_schema(
    folder: Path,
) -> None:
    both = ("--optimizer", "adamw", "--optimizer", "scion")
    done = hptransfer("tails", "tiny.toml", *QUICK, *both, "--json", cwd=folder)
    made = strict(done.stdout)
    follows(made, "tails")
    for run in made["runs"]:
        assert run["curve_k"] == sorted(set(run["curve_k"]))
        assert {len(x["curve_index"]) for x in run["layers"]} == {len(run["curve_k"])}
    assert strict((folder / "results/tiny/tails.json").read_text()) == made
    assert [run["optimizer"] for run in made["runs"]] == ["adamw", "scion"]
    for run in made["runs"]:
        counted = [sum(v for k, v in each.items() if k != "batch") for each in run["counts"]]
        assert counted == [24, 24]
        assert all(("p_eff" in x) and (x["p_eff"] is None) == (x["batch"] > 1)
                   for x in run["layers"] if x["frobenius"]["verdict"] != "no noise")  # fmt: skip


def test_a_head_that_starts_at_zero_leaves_the_layers_below_without_noise(folder: Path) -> None:
    suite = (folder / "tiny.toml").read_text().replace("[optimizers.adamw]", "[optimizers.muon]")
    suite = suite.replace('negative_control = "adamw"', 'negative_control = "muon"')
    (folder / "tiny.toml").write_text(suite)
    done = hptransfer("tails", "tiny.toml", *QUICK, "--json", cwd=folder)
    [run] = strict(done.stdout)["runs"]
    silent = {x["layer"] for x in run["layers"] if x["frobenius"]["verdict"] == "no noise"}
    steps = {x["step"] for x in run["layers"] if x["frobenius"]["verdict"] == "no noise"}
    assert "embedding" in silent
    assert "head" not in silent
    assert steps == {0}


def test_the_best_recorded_learning_rate_is_taken_where_there_is_one(folder: Path) -> None:
    quiet = ("--quiet", "--yes", "--seeds", 1)
    assert hptransfer("tune", "tiny.toml", *quiet, cwd=folder).returncode == 0
    carried = hptransfer("export", "tiny.toml", "--optimizer", "adamw", cwd=folder).stdout
    done = hptransfer("tails", "tiny.toml", *QUICK, "--json", cwd=folder)
    [run] = strict(done.stdout)["runs"]
    assert run["lr_source"] == "best recorded"
    assert run["log2_lr"] == tomllib.loads(carried)["adamw"]["log2_lr"] != -6.0
    wider = hptransfer("tails", "tiny.toml", *QUICK, "--json", "--width", 16, cwd=folder)
    [run] = strict(wider.stdout)["runs"]
    assert (run["axis_value"], run["lr_source"]) == (16, "middle of the range")


def test_the_report_shows_what_was_measured_and_names_a_file_that_it_cannot_read(
    folder: Path,
) -> None:
    quiet = ("--quiet", "--yes", "--seeds", 1)
    assert hptransfer("tune", "tiny.toml", *quiet, cwd=folder).returncode == 0
    done = hptransfer("tails", "tiny.toml", *QUICK, cwd=folder)
    assert "hptransfer report tiny shows them" in done.stdout
    page = folder / "results/tiny/report.html"
    assert hptransfer("report", "tiny", cwd=folder).stderr == ""
    text = page.read_text()
    assert "Tails of the gradient noise" in text
    assert "The settings of this run are not those" not in text
    assert "hptransfer tails tiny.toml --steps 3" in text
    (folder / "results/tiny/tails.json").write_text("{}")
    done = hptransfer("report", "tiny", cwd=folder)
    assert done.returncode == 0
    assert "note: left out of the report: results/tiny/tails.json: damaged" in done.stderr
    assert "tails.json could not be read" in page.read_text()


def test_a_run_with_other_steps_is_not_taken_for_the_suite_that_was_tuned(folder: Path) -> None:
    quiet = ("--quiet", "--yes", "--seeds", 1)
    assert hptransfer("tune", "tiny.toml", *quiet, cwd=folder).returncode == 0
    assert hptransfer("tails", "tiny.toml", *QUICK, "--steps", 2, cwd=folder).returncode == 0
    assert hptransfer("report", "tiny", cwd=folder).returncode == 0
    text = (folder / "results/tiny/report.html").read_text()
    assert "The settings of this run are not those" in text
    assert "hptransfer tails" not in text


def test_the_noise_of_a_users_model_is_measured_and_reported(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import torch\n\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self, width, vocab):\n"
        "        super().__init__()\n"
        "        self.embedding = torch.nn.Embedding(vocab, width)\n"
        "        self.stack = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in '12')\n"
        "        self.head = torch.nn.Linear(width, vocab, bias=False)\n\n"
        "    def forward(self, x):\n"
        "        h = self.embedding(x)\n"
        "        for layer in self.stack:\n"
        "            h = h + torch.relu(layer(h))\n"
        "        return self.head(h)\n\n"
        "def mine(width, *, vocab: int = 256, context: int = 16):\n"
        '    """Layers on each token alone."""\n'
        "    return Mine(width, vocab)\n"
    )
    suite = (folder / "tiny.toml").read_text()
    model = 'model = { name = "gpt", n_layer = 1, head_size = 8, context = 16 }'
    assert model in suite
    (folder / "tiny.toml").write_text(suite.replace(model, 'model = "mine.py:mine"'))
    quiet = ("--quiet", "--yes", "--seeds", 1)
    assert hptransfer("tune", "tiny.toml", *quiet, cwd=folder).returncode == 0
    done = hptransfer("tails", "tiny.toml", *QUICK, "--json", cwd=folder)
    [run] = strict(done.stdout)["runs"]
    names = list(dict.fromkeys(each["layer"] for each in run["layers"]))
    assert sorted(names) == ["embedding", "head", "stack.0", "stack.1"]
    (folder / "mine.py").unlink()  # a report imports no code
    assert hptransfer("report", "tiny", cwd=folder).returncode == 0
    text = (folder / "results/tiny/report.html").read_text()
    assert ">stack.0: " in text or ">stack.1: " in text  # the one nearest to heavy
    assert "The settings of this run are not those" not in text


def test_a_folder_that_another_version_wrote_is_refused_before_anything_trains(
    folder: Path,
) -> None:
    (folder / "results/tiny").mkdir(parents=True)
    (folder / "results/tiny/suite.json").write_text('{"schema": 3}')
    done = hptransfer("tails", "tiny.toml", "--pairs", 100, cwd=folder)
    assert done.returncode == 2
    assert "got schema 3" in done.stderr
    assert "[1/" not in done.stderr
    assert not (folder / "results/tiny/tails.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pairs", 99), "error: --pairs: got 99, needs at least 100"),
        (("--optimizer", "adamx"), "error: --optimizer"),
        (("--device", "tpu"), "error: --device: got 'tpu'"),
    ],
)
def test_wrong_input_is_one_line_and_trains_nothing(
    folder: Path, arguments: tuple[object, ...], said: str
) -> None:
    done = hptransfer("tails", "tiny.toml", *arguments, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr
    assert "[1/" not in done.stderr
