"""Parts of one's own: lookup, identity, validation, training; one line for a wrong one."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from commands import call
from hptransfer import registry
from hptransfer.errors import InputError
from hptransfer.run.session import Options, Session
from hptransfer.suite.file import load_suite
from hptransfer.testing import validate

ROOT = Path(__file__).parent.parent
PAGES = [
    (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    for page in ("own-optimizer.md", "own-model.md", "own-data.md")
]
FILES = {
    name: text
    for page in PAGES
    for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for name in re.findall(r"^# (\w+\.py)\n", text)
}
SUITE = """
claim = "mine holds"
model = { name = "my_model.py:past", context = 8 }
data = { name = "file", path = "TEXT" }
base = { width = 8 }
proxy = 8
targets = [16]
steps = 4
batch = 4
eval_tokens = 512
seeds = 1
max_seeds = 1
verify = false

[optimizers.mine]
use = "my_opt.py:damped"
lr = "2^-4..2^-2"

[optimizers.adagrad]
use = "torch.optim:Adagrad"
lr = "2^-4..2^-2"
hp = { lr_decay = 0.01 }
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "mine.toml").write_text(SUITE.replace("TEXT", str(tiny_text)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_docs_show_an_optimizer_in_about_12_lines_and_a_model_in_about_20() -> None:
    lines = {name: [x for x in text.splitlines() if x.strip()] for name, text in FILES.items()}
    assert set(lines) == {"my_opt.py", "my_model.py", "my_data.py"}
    assert len(lines["my_opt.py"]) <= 15
    assert len(lines["my_model.py"]) <= 20


@pytest.mark.parametrize(
    "target",
    ["my_opt.py:damped", "my_model.py:past", "my_data.py:stripes", "torch.optim:Adagrad"],
)
def test_the_parts_in_the_docs_keep_their_contract(target: str, folder: Path) -> None:
    broken = [check for check in validate(target) if not check.passed]
    assert broken == []


def test_a_suite_of_own_parts_runs_to_its_report_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert call(["run", str(folder / "mine.toml"), "--trials", "3"], monkeypatch) == 0
    [records] = elsewhere.glob("results/mine/records-*.jsonl")
    text = records.read_text()
    assert '"name":"damped"' in text
    assert str(folder) not in text  # no path in a record
    assert (elsewhere / "results/mine/report.html").is_file()
    # the report does without the parts
    for name in FILES:
        (folder / name).unlink()
    assert call(["report", "mine"], monkeypatch) == 0


def test_an_edited_part_is_another_run(folder: Path) -> None:
    before = registry.describe("optimizer", "my_opt.py:damped")
    path = folder / "my_opt.py"
    path.write_text(path.read_text().replace("0.9", "0.8"))
    after = registry.describe("optimizer", "my_opt.py:damped")
    assert before.name == after.name == "damped"
    assert before.revision != after.revision
    table = {"name": "damped", "revision": before.revision}
    with pytest.raises(InputError, match="its source has changed since the run began"):
        registry.load_spec("optimizer", table)


def test_a_flag_of_an_optimizer_may_narrow_its_learning_rates(folder: Path) -> None:
    (folder / "flag.py").write_text(
        'LIMITS = {"o.log2_lr": (-9, 3), "o.tight.log2_lr": (-9, 0)}\n'
        'def o(p, *, tight: bool = False):\n    """One."""\n'
    )
    part = registry.describe("optimizer", "flag.py:o")
    assert part.lr_limits({"tight": False}) == (-9, 3)
    assert part.lr_limits({"tight": True}) == (-9, 0)


WRONG = {
    "nothing.py:f": ("no file", "where you are"),
    "my_opt.py:dammped": ("my_opt.py defines no 'dammped'", "did you mean 'damped'?"),
    "no_such_package.x:f": ("no module no_such_package.x", "is its package installed"),
    "os:path": ("no module os with a source file", "is its package installed"),
    "package.outside:f": ("no module package.outside", "is its package installed"),
    "my_opt.inside:f": ("no module my_opt.inside", "is its package installed"),
    "by_hand:f": ("no module by_hand with", "is its package installed"),
    "broken.py:f": ("invalid syntax", "valid Python"),
    "literal.py:f": ("the default of beta is", "write it as a literal"),
    "qqqq": ("unknown optimizer 'qqqq'", "my_file.py:my_optimizer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_part_that_cannot_be_read_is_one_line_and_a_hint(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, "by_hand", ModuleType("by_hand"))
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text('import json\n\njson.loads("")\n')
    (folder / "literal.py").write_text("B = 1.0\ndef f(p, *, beta: float = B): ...\n")
    with pytest.raises(InputError) as caught:
        registry.describe("optimizer", name)
    message, hint = WRONG[name]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in caught.value.hint


def test_a_file_that_fails_on_import_says_where(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    (folder / "fails.py").write_text('import json\n\njson.loads("")\ndef f(p): ...\n')
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text('import json\n\njson.loads("")\n')
    (folder / "package" / "inside.py").write_text("def f(p): ...\n")
    for name in ("fails.py:f", "fails:f", "package.inside:f"):
        with pytest.raises(
            InputError, match=r"importing it failed at .*: JSONDecodeError"
        ) as caught:
            registry.load("optimizer", name)
        assert re.fullmatch(
            r"python (\S*fails.py|-c 'import \S+') shows the same", caught.value.hint
        )


@pytest.mark.parametrize("end", ["1 / 0", "del f", "raise SystemExit(0)"])
def test_a_file_that_fails_on_import_is_no_module(end: str, folder: Path) -> None:
    (folder / "fails.py").write_text(f"def f(p): ...\n{end}\n")
    for _ in range(2):
        with pytest.raises(InputError, match="importing it failed at"):
            registry.load("optimizer", "fails.py:f")
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    assert str(folder / "fails.py") not in files


BAD_RULES = {
    "reads the name": ("", "", "does not read a parameter's name"),
    "a Python if": (
        "m = beta",
        "assert float(step.lr) > 0\n        m = beta",
        "moves lanes together as alone (vmap = loop)",
    ),
    "in place": ("m = beta * state", "g.mul_(0.5); m = beta * state", "leaves its argum"),
    "keeps the gradient": ('{"m": m}', '{"m": g}', "leaves its arguments alone"),
    "in place otherwise": (
        "update=update",
        "batched=True, update_=lambda g, state, w, step: w.add_(1), update=update",
        "moves one lane in place as otherwise",
    ),
    "NaN at zero": (" + 1e-30", "", "stays finite on a zero gradient"),
    "wrong shape": ("torch.randn(p.shape", "torch.randn(3", "draws finite weights"),
    "its own randomness": ("generator=generator", "generator=None", "draws finite weights"),
    "climbs": ("w - step.lr", "w + step.lr", "lowers the loss"),
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_a_broken_optimizer_fails_the_clause_that_it_breaks(name: str, folder: Path) -> None:
    old, new, clause = BAD_RULES[name]
    text = FILES["my_opt.py"].replace(old, new)
    if name == "reads the name":
        text = text.replace("step.lr * m", "step.lr * len(p.name) * m")
    (folder / "bad.py").write_text(text)
    assert any(clause in c.name for c in validate("bad.py:damped") if not c.passed)


BAD_MODELS = {
    "sees the future": ("h.cumsum(1) / seen", "h.mean(1, keepdim=True).expand_as(h)", "its time"),
    "mixes the batch": ("h.cumsum(1) / seen", "(h - h.mean(0)).cumsum(1) / seen", "apart"),
    "keeps statistics": ("nn.LayerNorm(width)", "nn.BatchNorm1d(width)", "a role for every"),
    "draws": ("nn.LayerNorm(width)", "nn.Dropout(0.1)", "a role for every"),
    "an idle weight": (
        "self.norm =",
        "self.idle = nn.Linear(width, width); self.norm =",
        "gradient",
    ),
    "a loop over values": ("torch.relu(", "(lambda u: u if float(u.sum()) else u)(", "lanes"),
    "fixed size": ("nn.Linear(width, 4 * width)", "nn.Linear(width, 4 * 63)", "logits"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_broken_model_fails_the_clause_that_it_breaks(name: str, folder: Path) -> None:
    old, new, clause = BAD_MODELS[name]
    text = FILES["my_model.py"].replace(old, new, 1)
    assert text != FILES["my_model.py"]
    (folder / "bad.py").write_text(text)
    assert any(clause in c.name for c in validate("bad.py:past") if not c.passed)


def test_a_data_set_of_ones_own_is_validated_and_trained_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my_data.py").write_text(
        "import numpy as np\n"
        "from hptransfer.datasets import Tokens, fingerprint\n"
        "def counts(*, n: int = 4000):\n"
        '    """Counting modulo 7."""\n'
        "    t = (np.arange(n) % 7).astype(np.uint8)\n"
        "    a, b = t[: n // 2].copy(), (6 - t[n // 2 :]).astype(np.uint8)\n"
        '    return Tokens("counts", a, b, 7, fingerprint(a, b))\n'
    )
    assert [c for c in validate("my_data.py:counts") if not c.passed] == []
    text = (folder / "mine.toml").read_text()
    text = re.sub(r"data = .*", 'data = { name = "my_data.py:counts", n = 3000 }', text)
    (folder / "mine.toml").write_text(text)
    arguments = ["tune", "mine.toml", "--trials", "2", "--optimizer", "mine", "--quiet"]
    assert call(arguments, monkeypatch) == 0


def test_held_out_text_that_is_trained_on_fails_its_clause(folder: Path) -> None:
    """Also where it begins with something else."""
    (folder / "leak.py").write_text(
        "import numpy as np\n"
        "from hptransfer.datasets import Tokens, fingerprint\n"
        "def leak():\n"
        '    """600 fresh bytes, then the training text again."""\n'
        "    noise = np.random.default_rng(0).integers(0, 250, 50_600).astype(np.uint8)\n"
        "    train, held = noise[600:].copy(), noise.copy()\n"
        '    return Tokens("leak", train, held, 256, fingerprint(train, held))\n'
    )
    [failed] = [check for check in validate("leak.py:leak") if not check.passed]
    assert failed.name == "holds out what it does not train on"
    assert "63 of 64 samples of held-out text are in the training part" in failed.detail


def test_validate_prints_the_table_and_leaves_with_1_where_a_clause_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["validate", "my_opt.py:damped"], monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "my_opt.py:damped as an optimizer" in shown
    assert shown.count("holds") == 13
    (folder / "bad.py").write_text(FILES["my_opt.py"].replace(" + 1e-30", ""))
    assert call(["validate", "bad.py:damped"], monkeypatch) == 1
    captured = capsys.readouterr()
    assert "fails  stays finite on a zero gradient" in captured.out
    assert "of 13 clauses fail" in captured.err
    assert call(["validate", "dammped"], monkeypatch) == 2


def test_a_torch_optimizer_that_refuses_the_parameters_is_one_line(folder: Path) -> None:
    checks = {c.name: c for c in validate("torch.optim:Muon")}
    refused = checks["is built over a model's parameters"]
    assert refused.passed or "Muon" in refused.detail
    checks = {c.name: c for c in validate("torch.optim:SparseAdam")}
    assert not all(c.passed for c in checks.values())
    assert all("\n" not in c.detail for c in checks.values())
    assert torch.is_grad_enabled()


def test_a_part_behind_an_entry_point_is_found_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = folder / "installed" / "their_package"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text(FILES["my_opt.py"])
    stated = own.parent / "their_package-1.0.dist-info"
    stated.mkdir()
    (stated / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (stated / "entry_points.txt").write_text(
        "[hptransfer.optimizers]\ntheirs = their_package:damped\n"
    )
    monkeypatch.syspath_prepend(str(own.parent))
    assert "theirs" in registry.names("optimizer")
    part = registry.describe("optimizer", "theirs")
    assert (part.name, part.target) == ("theirs", "their_package:damped")
    assert part.summary == "Momentum whose every step has length lr."
    loaded = registry.load_spec("optimizer", {"name": "theirs", "revision": part.revision})
    assert loaded.__name__ == "damped"
    with pytest.raises(InputError, match="unknown optimizer 'theres'") as caught:
        registry.describe("optimizer", "theres")
    assert caught.value.hint == "did you mean 'theirs'?"


def test_a_model_that_cannot_be_built_at_a_width_is_one_line(folder: Path) -> None:
    (folder / "odd.py").write_text(
        "from my_model import Past\n\n"
        "def odd(width, *, vocab: int = 256, context: int = 8):\n"
        '    """Not above 100."""\n'
        "    return Past(width, vocab // (width < 100))\n"
    )
    suite = (folder / "mine.toml").read_text()
    (folder / "mine.toml").write_text(suite.replace("my_model.py:past", "odd.py:odd"))
    chosen = load_suite("mine.toml").narrowed(targets=[128])
    with pytest.raises(InputError) as caught:
        Session(chosen, Options(folder / "results", device="cpu"), ["mine"]).expected()
    assert "building it at width 128 failed at" in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)
