"""Whether bfloat16 products pay on a device, by the instructions that its processor lists.

The list decides and no timing does, because all processes on a machine, and a run before and after
a stop, must round alike.
"""

import torch

# Smaller side of a matrix from which bfloat16 products are faster than float32's. AMX tiles cost
# time per call, so they pay later than the vectors of AVX-512. GPUs and ARM take the value of AMX
# without a measurement.
BFLOAT16_ROWS = 128
BFLOAT16_ROWS_OF_VECTORS = 64

# Torch's capability of a CPU tells the vector width of its kernels; narrower kernels have no
# bfloat16 products. The width alone is not enough: the first processors with AVX-512 convert every
# bfloat16 to float32 and back.
WIDE_KERNELS = ("AVX512", "SVE256")
BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # the last two: ARM


def bfloat16_rows(device: torch.device) -> int | None:
    """Smaller side of a matrix, in rows, from which bfloat16 products pay; None for never."""
    if device.type != "cpu":
        return BFLOAT16_ROWS
    if torch.backends.cpu.get_cpu_capability() not in WIDE_KERNELS:
        return None
    if not torch.backends.mkldnn.is_available():  # its kernels alone have fast products
        return None
    capabilities = torch.cpu.get_capabilities()
    names = [name for name in BFLOAT16_INSTRUCTIONS if capabilities.get(name, False)]
    if not names:
        return None
    return BFLOAT16_ROWS_OF_VECTORS if names == ["avx512_bf16"] else BFLOAT16_ROWS
