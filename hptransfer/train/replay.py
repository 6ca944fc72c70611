"""The steps of a narrow unit on a GPU, replayed as one CUDA graph.

A narrow model's kernels are shorter than the Python that calls them: recorded once, they are called
together. A wide model's are longer, and a graph would keep the memory of its activations.
"""

import torch

from hptransfer.registry import BUILTINS
from hptransfer.train.lanes import Lanes, Moment
from hptransfer.train.schedule import lr_factor

GRAPH_ELEMENTS = 2**28  # weights of a unit up to which its steps are replayed
EAGER_STEPS = 3  # before a graph is recorded: libraries set themselves up in the first steps


def replayable(lanes: Lanes) -> bool:
    """Whether the steps of this unit may be recorded.

    What Python decides in a step is recorded as it was decided then. This package's models and
    optimizers decide nothing after the first step; of others nobody knows.
    """
    spec = lanes.spec
    return (
        lanes.device.type == "cuda"
        and spec.model["name"] in BUILTINS["model"]
        and spec.optimizer["name"] in BUILTINS["optimizer"]
        and not lanes.recompute
        and sum(group.w.numel() for group in lanes.groups) <= GRAPH_ELEMENTS
    )


class Steps:
    """Makes the steps of a unit, one after the other; `graph`: whether they are replayed."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._eager = EAGER_STEPS
        self._recorded: _Recorded | None = None
        self.graph = replayable(lanes)

    @property
    def practice(self) -> int:
        """Steps that take longer than those after them."""
        return EAGER_STEPS + 1 if self.graph else 1

    def step(self, t: int) -> None:
        """Step t, after all steps before it."""
        lanes = self._lanes
        if self.graph and any(group.carried for group in lanes.groups):
            self.graph = False  # a momentum that is kept in the gradient has no fixed memory
        if not self.graph or self._eager > 0:
            self._eager -= 1
            lanes.gradients(t)
            lanes.update(t)
            return
        if self._recorded is None:
            self._recorded = _Recorded(lanes, t)
        self._recorded.replay(t)


class _Recorded:
    """A graph of one step. What differs between steps lies in tensors that it reads."""

    def __init__(self, lanes: Lanes, t: int) -> None:
        device, dtype, spec = lanes.device, lanes.dtype, lanes.spec
        factors = [lr_factor(spec, step) for step in range(spec.steps + 1)]
        self._factors = torch.tensor(factors, dtype=dtype, device=device)
        self._index = torch.tensor([t], device=device)
        self._batches = lanes.batches
        self._x, self._y, shared = lanes.batches.train(t)
        self._graph = torch.cuda.CUDAGraph()
        # other threads of this process may use the GPU meanwhile
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            now, then = self._factors.index_select(0, torch.cat([self._index, self._index + 1]))
            losses = lanes.accumulate(self._x, self._y, shared)
            lanes.losses.index_copy_(1, self._index, losses[:, None].to(lanes.losses.dtype))
            lanes.move(Moment(self._index[0].to(dtype), now, then), state_in_place=True)

    def replay(self, t: int) -> None:
        x, y, _ = self._batches.train(t)
        self._index.fill_(t)
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()
