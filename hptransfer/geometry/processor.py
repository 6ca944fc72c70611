"""Whether bfloat16 products pay on a device: by the instructions that its processor lists.

The list decides, not a measurement: two processes on one machine, and a run before and after a
stop, must round alike.
"""

import torch

# Smaller side of a matrix from which bfloat16 products are faster than float32's. AMX tiles have a
# price per call, so they pay later than the vectors of AVX-512. GPUs and ARM: as AMX, not measured.
BFLOAT16_ROWS = 128
BFLOAT16_ROWS_OF_VECTORS = 64

# Torch's name of a CPU says how wide its kernels' vectors are; narrower kernels have no bfloat16
# products. The name alone is not enough: the first processors with AVX-512 convert every bfloat16
# to float32 and back.
WIDE_KERNELS = ("AVX512", "SVE256")
BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # the last two are ARM's


def bfloat16_rows(device: torch.device) -> int | None:
    """Smaller side of a matrix from which bfloat16 products pay; None where they never do."""
    if device.type != "cpu":
        return BFLOAT16_ROWS
    if torch.backends.cpu.get_cpu_capability() not in WIDE_KERNELS:
        return None
    if not torch.backends.mkldnn.is_available():  # whose kernels the fast products are
        return None
    listed = torch.cpu.get_capabilities()
    able = [name for name in BFLOAT16_INSTRUCTIONS if listed.get(name, False)]
    if not able:
        return None
    return BFLOAT16_ROWS_OF_VECTORS if able == ["avx512_bf16"] else BFLOAT16_ROWS
