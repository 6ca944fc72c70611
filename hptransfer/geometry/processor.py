"""Whether bfloat16 products are fast on a device, by the instructions that its processor lists."""

import torch

# Torch's capability of a CPU tells the vector width of its kernels; narrower kernels have no
# bfloat16 products. The width alone is not enough: the first processors with AVX-512 convert every
# bfloat16 to float32 and back.
WIDE_KERNELS = ("AVX512", "SVE256")
BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # the last two: ARM


def fast_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices are faster than those of float32 there.

    A GPU is taken to have them.
    """
    if device.type != "cpu":
        return True
    if torch.backends.cpu.get_cpu_capability() not in WIDE_KERNELS:
        return False
    if not torch.backends.mkldnn.is_available():  # its kernels alone have fast products
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)
