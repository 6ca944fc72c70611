"""Batches of a unit on its device, a pure function of (seed, step)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from hptransfer.datasets import Tokens, offsets, spread
from hptransfer.errors import InputError
from hptransfer.spec import RunSpec
from hptransfer.train.build import Data, context_of


class Batches:
    """Batches on the device, a pure function of (seed, step)."""

    def __init__(
        self, specs: Sequence[RunSpec], data: Data, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.seeds = list(dict.fromkeys(spec.seed for spec in specs))
        self.lane_seed = torch.tensor(
            [self.seeds.index(spec.seed) for spec in specs], device=device
        )
        self.batch = specs[0].batch
        self.device = device
        self.text = isinstance(data, Tokens)
        if isinstance(data, Tokens):
            context = context_of(specs[0])
            self.window = torch.arange(context + 1, device=device)
            parts = {"train": data.train, "heldout": data.heldout}
            wide = device.type == "cuda" and data.train.itemsize > 1  # no index of uint16 there
            self.tokens = {
                k: torch.from_numpy(v.astype(np.int32) if wide else v).to(device)
                for k, v in parts.items()
            }
            self.high = {k: len(v) - context for k, v in parts.items()}
            for part, tokens in parts.items():
                if self.high[part] < 1:
                    raise InputError(
                        f"data {data.name!r}: its {part} part has {len(tokens)} tokens, "
                        f"needs more than the context of {context}",
                        "a shorter model.context, or more data",
                    )
        else:
            images = {"train": data.x_train, "heldout": data.x_heldout}
            labels = {"train": data.y_train, "heldout": data.y_heldout}
            self.images = {k: torch.from_numpy(v).to(device, dtype) for k, v in images.items()}
            self.labels = {k: torch.from_numpy(v).to(device) for k, v in labels.items()}
            self.high = {k: len(v) for k, v in labels.items()}

    def _at(self, part: str, starts: np.ndarray) -> tuple[Tensor, Tensor]:
        """x, y of the examples that begin at `starts`, (batch,)."""
        at = torch.from_numpy(starts).to(self.device, non_blocking=True)  # else a GPU is waited for
        if self.text:
            windows = self.tokens[part][at[:, None] + self.window].long()
            return windows[:, :-1], windows[:, 1:]
        return self.images[part][at], self.labels[part][at]

    def train(self, t: int) -> tuple[Tensor, Tensor, bool]:
        """x, y of step t and whether all lanes share them (else they carry a lane axis)."""
        high = self.high["train"]
        drawn = [self._at("train", offsets(s, t, self.batch, high)) for s in self.seeds]
        if len(drawn) == 1:
            return *drawn[0], True
        x, y = (torch.stack(parts)[self.lane_seed] for parts in zip(*drawn, strict=True))
        return x, y, False

    def heldout(self, count: int, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`count` held-out examples, each once and the same for every run, at most `most` a time.

        Raises InputError where the data holds fewer.
        """
        high = self.high["heldout"]
        if count > high:
            raise InputError(
                f"eval_examples: got {count}, the held-out part holds {high}", "a smaller number"
            )
        starts = spread(count, high)
        for first in range(0, count, most):
            yield self._at("heldout", starts[first : first + most])
