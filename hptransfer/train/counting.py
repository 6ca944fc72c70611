"""FLOPs of a training step, counted by torch while it runs."""

import math
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from hptransfer.train.lanes import Lanes
from hptransfer.train.prepare import StepFlops


def _flop_formulas() -> dict[Any, Any]:
    """Formulas for what torch's counter counts wrongly.

    It skips the CPU kernel of attention, counts the recomputation of the CUDA kernels, forgets the
    groups (so the lanes) in a convolution's backward pass, and fails on a product that names the
    dtype of its result.
    """
    aten = torch.ops.aten

    def forward(*shapes: Any, **_: Any) -> int:
        return sdpa_flop_count(*shapes[:3])

    def backward(*shapes: Any, **_: Any) -> int:
        return 2 * sdpa_flop_count(*shapes[1:4])

    def convolution(*shapes: Any, **_: Any) -> int:
        out, _x, w, *_rest, wanted = shapes  # wanted: gradients of x, of w, of the bias
        return sum(wanted[:2]) * 2 * math.prod(out) * math.prod(w[1:])

    def product(a: Any, b: Any, *_: Any, **__: Any) -> int:
        return 2 * math.prod(a) * b[-1]

    return {
        aten.bmm: product,
        aten.convolution_backward: convolution,
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
        aten._scaled_dot_product_flash_attention_backward: backward,
        aten._scaled_dot_product_efficient_attention_backward: backward,
        aten._scaled_dot_product_cudnn_attention_backward: backward,
    }


def counted_step(lanes: Lanes, t: int) -> StepFlops:
    """Make step t; the FLOPs of one lane in it.

    Counting makes the step a few times as long.
    """
    with FlopCounterMode(display=False, custom_mapping=_flop_formulas()) as model:
        lanes.gradients(t)
    with FlopCounterMode(display=False, custom_mapping=_flop_formulas()) as optimizer:
        lanes.update(t)
    n = len(lanes.specs)
    return StepFlops(model.get_total_flops() / n, optimizer.get_total_flops() / n)
