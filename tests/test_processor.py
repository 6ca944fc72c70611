"""Whether bfloat16 products are fast: the instructions decide, a measurement checks."""

import time

import pytest
import torch

from hptransfer.cli.common import warn_of_precision
from hptransfer.geometry.processor import fast_bfloat16 as is_fast
from hptransfer.suite.file import load_suite
from units import CPU

OFF = dict.fromkeys(
    ("amx_bf16", "amx_tile", "avx512_bf16", "avx512_f", "avx512_vnni", "bf16", "sve_bf16"), False
)
WITHOUT = {  # AVX-512 without bfloat16
    "avx512_f": True,
    "avx512_bw": True,
    "avx512_vl": True,
    "avx512_dq": True,
    "avx512_vnni": True,
}


@pytest.mark.parametrize(
    ("name", "listed", "fast"),
    [
        pytest.param("AVX512", {"amx_bf16": True, "avx512_bf16": True}, True, id="AMX"),
        pytest.param("AVX512", {"amx_bf16": True}, True, id="AMX alone"),
        pytest.param("AVX512", {"avx512_bf16": True}, True, id="vectors"),
        pytest.param("AVX512", WITHOUT, False, id="AVX-512 without bfloat16"),
        pytest.param("AVX512", {"amx_tile": True, "amx_int8": True}, False, id="AMX of integers"),
        pytest.param("AVX512", {}, False, id="nothing listed"),
        pytest.param("AVX2", {"avx512_bf16": True}, False, id="narrow kernels"),
        pytest.param("AVX2", {}, False, id="AVX2"),
        pytest.param("SVE256", {"bf16": True, "sve_bf16": True, "neon": True}, True, id="ARM"),
        pytest.param("SVE256", {"neon": True, "sve": True}, False, id="ARM without bfloat16"),
        pytest.param("DEFAULT", {"bf16": True, "neon": True}, False, id="ARM, narrow kernels"),
        pytest.param("DEFAULT", {}, False, id="another processor"),
    ],
)
@pytest.mark.parametrize("off", [{}, OFF], ids=["left out", "listed as absent"])
def test_the_listed_instructions_decide_whether_bfloat16_products_are_fast(
    name: str,
    listed: dict[str, bool],
    fast: bool,
    off: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**off, **listed})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert is_fast(CPU) == fast


def test_a_torch_without_onednn_has_no_fast_bfloat16_products(
    fast_bfloat16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not is_fast(CPU)


def test_a_gpu_is_not_asked_for_the_instructions_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert is_fast(torch.device("cuda"))


def shortest(dtype: torch.dtype, n: int = 256, times: int = 20) -> float:
    """Seconds of the fastest of a few products, because a busy machine slows only some of them."""
    a = torch.ones(4, n, n, dtype=dtype)
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        torch.bmm(a, a)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_where_bfloat16_products_are_chosen_here_they_are_not_slower_than_float32() -> None:
    """Products with a conversion take several times as long; native ones at most as long."""
    if not is_fast(CPU):
        pytest.skip("this processor lists no bfloat16 instructions")
    for dtype in (torch.bfloat16, torch.float32):
        shortest(dtype, times=2)  # the first call compiles the kernels
    assert shortest(torch.bfloat16) < 2 * shortest(torch.float32)


@pytest.mark.parametrize(
    ("precision", "listed", "warned"),
    [("bfloat16", False, True), ("bfloat16", True, False), ("float32", False, False)],
)
def test_a_suite_in_bfloat16_is_told_that_it_is_slow_on_this_processor(
    precision: str,
    listed: bool,
    warned: bool,
    fast_bfloat16: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": listed})
    suite = load_suite("mlp_width", {"precision": precision})
    warn_of_precision(suite, CPU)
    told = 'warning: precision = "bfloat16": this processor has no fast bfloat16 products'
    assert capsys.readouterr().err.startswith(told) == warned


@pytest.mark.parametrize(("hp", "warned"), [({"polar_dtype": "mixed"}, True), ({}, False)])
def test_mixed_polar_factors_are_told_to_be_slow_on_this_processor(
    hp: dict[str, str],
    warned: bool,
    fast_bfloat16: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    own = {"muon": {"lr": "2^-9..2^-2", "hp": hp}}
    changes = {"optimizers": own, "negative_control": None, "expect": {}}
    warn_of_precision(load_suite("mlp_width", changes), CPU)
    told = capsys.readouterr().err
    assert ('muon: polar_dtype = "mixed": this processor has no fast' in told) == warned
