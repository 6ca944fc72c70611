"""Wrong input on the command line: one line with the cause, and a hint."""

import ast
import re
from pathlib import Path

import pytest

from commanded import hptransfer
from hptransfer import cli
from hptransfer.suite.claim import MOST_SEEDS

BAD = [
    (("run", "quikstart"), "unknown suite 'quikstart'", "did you mean 'quickstart'?"),
    (
        ("tune", "--optimizer", "adamv"),
        "--optimizer: suite 'gpt_small' has no 'adamv'",
        "did you mean 'adamw'?",
    ),
    (
        ("plan", "quickstart", "--device", "gpu"),
        "--device: got 'gpu', allowed: auto, cpu, cuda, cuda:0, ...",
        "",
    ),
    (
        ("transfer", "quickstart", "--to", "32"),
        "--to: 32 is the proxy itself",
        "name another width (--to, --from)",
    ),
    *(
        (
            (*command, "--seeds", "5000000"),
            f"suites/{command[1]}.toml: {field}: got 5000000, "
            f"input should be less than or equal to {most}",
            "see docs/how-to/own-suite.md",
        )
        for command, field, most in (
            (("tune", "quickstart"), "seeds", MOST_SEEDS),
            (("transfer", "quickstart"), "seeds", MOST_SEEDS),
            (("coords", "coords"), "seeds", MOST_SEEDS),
        )
    ),
    (("report",), "no records under results", "hptransfer run quickstart makes some"),
    (("list", "optimisers"), "list: got 'optimisers'", "did you mean 'optimizers'?"),
    (
        ("tune", "quickstart", "--width", "48"),
        "width 48 is not a multiple of head_size 32",
        "the nearest widths are 32 and 64",
    ),
    (
        ("run", "quickstart", "--data", "no/such.txt"),
        "data.path: got 'no/such.txt', no such file or directory",
        "a relative path starts at HERE",
    ),
]


@pytest.mark.parametrize(("arguments", "message", "hint"), BAD)
def test_wrong_input_is_one_line_and_a_hint(
    arguments: tuple[str, ...], message: str, hint: str, tmp_path: Path
) -> None:
    done = hptransfer(*arguments, cwd=tmp_path)
    hint = hint.replace("HERE", str(tmp_path))
    expected = f"error: {message}\n" + (f"\nhint: {hint}\n" if hint else "")
    assert done.stderr.endswith(expected), done.stderr
    assert done.returncode == 2
    assert done.stdout == ""
    assert not (tmp_path / "results").exists()


CHANGES = [
    ("steps = 3", "stepps = 3", "stepps: unknown key 'stepps'", "did you mean 'steps'?"),
    (
        "steps = 3",
        'steps = "three"',
        "steps: got 'three', input should be a valid integer",
        "see docs/how-to/own-suite.md",
    ),
    (
        "[optimizers.scion]",
        "[optimizers.scoin]",
        "optimizers.scoin: unknown optimizer 'scoin'",
        "did you mean 'scion'?",
    ),
    (
        'lr = "2^-6..2^-2"',
        'lr = "2^-2..2^-6"',
        "optimizers.scion.lr: got '2^-2..2^-6', allowed: a rising range within 2^-30..2^6",
        "write the smaller learning rate first",
    ),
    (
        'lr = "2^-6..2^-2"',
        'lr = "-0.1..0.2"',
        "optimizers.scion.lr: got '-0.1..0.2', needs powers of two such as '2^-13..2^-5'",
        "learning rates are positive and lie on an octave grid",
    ),
    (
        'lr = "2^-6..2^-2"',
        'lr = "2^-6..2^3"',
        "optimizers.scion.lr: got '2^-6..2^3', allowed: 2^-30..2^0 for scion",
        "the update of a constrained method is a convex combination, so lr <= 1",
    ),
    (
        'lr = "2^-6..2^-2"',
        'lr = "2^-6..2^-2"\nhp = { betta = 0.8 }',
        "optimizers.scion.hp.betta: 'scion' has no field 'betta'",
        "did you mean 'beta'?",
    ),
    (
        'lr = "2^-6..2^-2"',
        'lr = "2^-6..2^-2"\nhp = { beta = 1.5 }',
        "optimizers.scion.hp.beta: got 1.5, allowed: 0.0 to 0.9999",
        "the default is 0.9",
    ),
    (
        'name = "gpt"',
        'name = "gtp"',
        "model: unknown model 'gtp'",
        "did you mean 'gpt'?",
    ),
]


@pytest.mark.parametrize(("old", "new", "message", "hint"), CHANGES)
def test_a_wrong_suite_is_named_with_its_place(
    old: str, new: str, message: str, hint: str, suite: Path, tmp_path: Path
) -> None:
    suite.write_text(suite.read_text().replace(old, new))
    done = hptransfer("run", "tiny.toml", cwd=tmp_path)
    assert done.stderr == f"error: tiny.toml: {message}\n\nhint: {hint}\n"
    assert done.returncode == 2
    assert not (tmp_path / "results").exists()


def test_a_damaged_record_is_noted_and_a_newer_schema_refused_with_file_and_line(
    suite: Path, tmp_path: Path
) -> None:
    assert hptransfer("run", suite, "--optimizer", "scion", cwd=tmp_path).returncode == 0
    [records] = (tmp_path / "results" / "tiny").glob("records-*.jsonl")
    good = records.read_text()
    lines = good.splitlines(keepends=True)
    records.write_text(lines[0] + lines[1][:50] + "\n" + "".join(lines[2:]))
    for command in ("run", suite, "--optimizer", "scion"), ("report", "tiny"):
        damaged = hptransfer(*command, cwd=tmp_path)
        assert damaged.returncode == 0
        assert damaged.stderr.count("note: results") == 1, damaged.stderr
        assert f"{records.name}: left out 1 damaged record line (line 2: " in damaged.stderr
    records.write_text(re.sub(r'"schema":\d+', '"schema":999', good, count=1))
    newer = hptransfer("report", cwd=tmp_path)
    assert newer.returncode == 2
    assert "schema 999" in newer.stderr
    assert "Traceback" not in newer.stderr + damaged.stderr


def test_a_results_folder_that_cannot_be_written_is_one_line(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    done = hptransfer("run", suite, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert (tmp_path / "results").read_text() == "a file"


def test_a_long_job_without_a_terminal_needs_yes(tmp_path: Path) -> None:
    done = hptransfer("transfer", "quickstart", "--to", 4096, "--steps", 5000, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r"error: this takes about [\d.]+ h\n\nhint: add --yes; ", done.stderr)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("folder", ["x/[/q]", "x/[bold]", "x/:smile:"])
def test_a_path_is_printed_as_it_stands(folder: str, suite: Path, tmp_path: Path) -> None:
    done = hptransfer("tune", suite, "--optimizer", "scion", "--results", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = hptransfer("report", "--results", folder, cwd=tmp_path)
    assert shown.stdout == f"report: {folder}/tiny/report.html\n"
    nothing = hptransfer("report", "--results", f"{folder}/none", cwd=tmp_path)
    assert nothing.stderr.startswith(f"error: no records under {folder}/none\n")


def test_no_message_moves_the_cursor_or_begins_a_line(tmp_path: Path) -> None:
    done = hptransfer("run", "a\x1b[2J\nerror: b.toml", cwd=tmp_path)
    assert done.stderr.startswith("error: no suite file a\\x1b[2J\\nerror: b.toml\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "n" * 5000),
        ("cite", "n" * 5000),
        ("report", "n" * 5000),
        ("validate", f"{'n' * 5000}.py:f"),
        ("plan", "quickstart", "--data", "n" * 5000),
        ("plan", "quickstart", "--results", "n" * 5000),
        ("plan", "quickstart", "--device", "n" * 5000),
        ("plan", "quickstart", "--optimizer", "n" * 5000),
        ("tune", "quickstart", "--width", 2**80),
        ("tune", "quickstart", "--steps", 2**80),
        ("transfer", "quickstart", "--to", 2**80),
    ],
)
def test_what_is_too_long_or_too_large_is_one_short_line(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = hptransfer(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "n" * 200 not in done.stderr


def test_targets_that_do_not_lie_above_the_proxy_are_left_out_and_named(
    suite: Path, tmp_path: Path
) -> None:
    suite.write_text(suite.read_text().replace("[16]", "[16, 24, 32]"))
    one = ("--optimizer", "adamw", "--dry-run")
    done = hptransfer("transfer", suite, "--from", 24, *one, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out: width 16, 24, not above --from 24\n" in done.stderr
    assert re.findall(r"^adamw +(\d+)", done.stdout, re.MULTILINE) == ["24", "32"]
    none = hptransfer("transfer", suite, "--from", 32, *one, cwd=tmp_path)
    assert none.returncode == 2
    assert none.stderr == (
        "error: --from 32: no target of tiny lies above it (targets: 16, 24, 32)\n"
        "\nhint: name a target with --to, or a smaller proxy with --from\n"
    )
    told = hptransfer("transfer", suite, "--from", 32, "--to", 16, *one, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "left out" not in told.stderr


def test_no_message_below_the_command_line_names_a_flag() -> None:
    package = Path(cli.__file__).parents[1]
    named = []
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "cli"):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docs = [node.value for node in nodes if isinstance(node, ast.Expr)]
        for node in nodes:
            if node in docs:
                continue
            text = node.value if isinstance(node, ast.Constant) else None
            # a single word belongs to a command in a report, not to a message
            if isinstance(text, str) and " " in text and re.search(r"(?<!\S)--[a-z]", text):
                named.append((path.name, text))
    assert [each for each in named if "pip install --upgrade" not in each[1]] == []
