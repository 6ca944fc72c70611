"""FLOPs of a training step, counted by torch while it runs."""

import math
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from hptransfer.train.lanes import Lanes


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


def counted_step(lanes: Lanes, t: int) -> dict[str, float]:
    """Make step t; the FLOPs of one lane in it, of the model and of the optimizer.

    Counting makes the step a few times as long.
    """
    with FlopCounterMode(display=False, custom_mapping=_flop_formulas()) as model:
        lanes.gradients(t)
    with FlopCounterMode(display=False, custom_mapping=_flop_formulas()) as optimizer:
        lanes.update(t)
    n = len(lanes.specs)
    return {
        "model_flops_per_step": model.get_total_flops() / n,
        "optimizer_flops_per_step": optimizer.get_total_flops() / n,
    }


def run_flops(flops: dict[str, float], steps: int, evaluations: int) -> float:
    """FLOPs of a run that made this many steps and evaluation batches, by those of one step.

    A forward pass has a third of a step's FLOPs of the model.
    """
    return steps * sum(flops.values()) + evaluations / 3 * flops["model_flops_per_step"]
