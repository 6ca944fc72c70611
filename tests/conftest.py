"""Common to all tests: one thread, a private cache, shape checks, properties without chance."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# In tests the annotations check shapes; a user pays nothing for them. The hook must come before the
# first import of the package, so it lasts for the whole session. It skips packages without tensors,
# which the import contract keeps free of torch.
TENSORS = ("geometry", "models", "optimizers", "train", "cost", "run", "testing", "optim", "export")
install_import_hook([f"hptransfer.{name}" for name in TENSORS], "shapes.checked")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def as_a_fresh_process() -> None:
    """A run changes settings of its process; the next test starts with the old ones."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def no_gpu_unasked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without the mark `gpu` runs on the CPU, also in its child processes."""
    if torch.cuda.is_available() and not request.node.get_closest_marker("gpu"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the cache of the user, unless it asks for that."""
    place = os.environ.get("HPTRANSFER_TEST_CACHE") or str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", place)
        yield Path(place)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 64 kB in which the last bytes mostly decide the next one."""
    words = [f"{number % 7} apples and {number % 11} pears\n" for number in range(4000)]
    path = tmp_path_factory.mktemp("text") / "tiny.txt"
    path.write_text("".join(words)[: 64 * 1024])
    return path


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """`commanded.SUITE` as a file, beside its text."""
    from commanded import SUITE

    text = tmp_path / "text.txt"
    text.write_bytes(bytes(i * i % 251 for i in range(60_000)))
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE.replace("TEXT", str(text)))
    return path


@pytest.fixture
def no_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search goes on from one of another test."""
    from hptransfer.search import samplers

    monkeypatch.setattr(samplers, "_replays", {})


@pytest.fixture
def fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in bfloat16 from 64 rows on, also on machines where they are slow."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
