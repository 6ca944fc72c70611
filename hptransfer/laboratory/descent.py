"""How many calls a method takes to a small gradient: thousands of lanes on one objective."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from hptransfer import registry
from hptransfer.datasets.noise import Noise, Stream
from hptransfer.models.plateau import Plateau
from hptransfer.optimizers import rules
from hptransfer.optimizers.rules import Rule, State, Step
from hptransfer.records.cells import (
    ADMITTED,
    CAPPED,
    DEARER,
    DIVERGED,
    MARGIN,
    REACHED,
    Cell,
    CellRecord,
)
from hptransfer.spec import Param
from hptransfer.train.environment import environment

# Rules whose update takes lanes as parameters of one shape, with momentum and lr of shape
# (lanes, 1, 1), to the same bits as lane by lane; other rules are mapped over lanes, which takes
# three times as long.
FOLDED = {"scion_unconstrained", "transported_scion", "muon", "nsgd", "sgd", "adamw"}


def measure(cell: Cell) -> CellRecord:
    """Train every lane of a cell until the running mean of ||grad F(X_t)||_* is at most eps.

    The norm is exact, and at X also where the gradient is taken at a transported Y. A lane that has
    made t steps of batch B has made t B calls. It ends `dearer` once the mean calls of its setting
    exceed MARGIN times the least mean of a setting that may be chosen, `capped` after `cap` steps.
    """
    began = time.process_time()
    running = _Running(cell)
    steps = np.full(len(running.alive), cell.cap)
    status = np.full(len(steps), CAPPED, np.int8)
    settings = _Settings(cell)
    for t in range(cell.cap):
        dual = running.step(t)
        reached = running.total <= running.model.eps * (t + 1)
        lost = ~np.isfinite(dual)
        over = reached | lost | settings.hopeless(t + 1)[running.setting]
        if not over.any():
            continue
        at = running.alive[over]
        steps[at] = t + 1
        status[at] = np.select([reached[over], lost[over]], [REACHED, DIVERGED], DEARER)
        settings.note(running.setting[reached], t + 1)
        settings.give_up(running.setting[lost])
        running.end(over)
        if not len(running.alive):
            break
    env = environment(torch.device("cpu"), len(steps), 1)
    return CellRecord(cell, steps, status, time.process_time() - began, env, time.time())


class _Settings:
    """The calls of every setting so far, and the least mean of one that may be chosen."""

    def __init__(self, cell: Cell) -> None:
        self.seeds = cell.shape[-1]
        self.batch = 2.0 ** cell.settings[:, 2]
        self.left = np.full(len(self.batch), float(self.seeds))
        self.calls = np.zeros(len(self.batch))
        self.best = cell.limit
        self.most = ADMITTED * cell.cap

    def hopeless(self, step: int) -> NDArray[np.bool_]:
        """Settings whose mean calls exceed MARGIN times the least mean already, (settings,)."""
        return self.calls + self.left * self.batch * step > MARGIN * self.best * self.seeds

    def note(self, settings: NDArray[np.int64], step: int) -> None:
        """Note lanes, by their settings, that reached the goal at this step."""
        np.subtract.at(self.left, settings, 1)
        np.add.at(self.calls, settings, step * self.batch[settings])
        means = self.calls[settings] / self.seeds
        whole = (self.left[settings] == 0) & (means <= self.most * self.batch[settings])
        if whole.any():
            self.best = min(self.best, float(means[whole].min()))

    def give_up(self, settings: NDArray[np.int64]) -> None:
        """Note settings of which a lane diverged."""
        self.calls[settings] = np.inf


class _Running:
    """The lanes that still train."""

    def __init__(self, cell: Cell) -> None:
        fields = {k: v for k, v in cell.model.items() if k not in ("name", "revision", "width")}
        self.model: Plateau = registry.load_spec("model", cell.model)(cell.model["width"], **fields)
        shape = tuple(self.model.x.shape)
        directions = self.model.x.numel() if cell.noise["spread"] == "all" else cell.model["width"]
        noise = Noise(**cell.noise, directions=directions, eps=self.model.eps)
        self.noise = Stream(noise, range(*cell.seeds))
        make: Callable[..., Rule] = registry.load_spec("optimizer", cell.optimizer)
        self.make = partial(make, _param(cell, shape), **cell.hp)
        self.momentum, self.clip = cell.momentum, cell.clip
        log2_lr, log2_alpha, log2_batch = cell.settings.T
        seeds = cell.shape[-1]
        self.setting = np.repeat(np.arange(len(log2_lr)), seeds)
        self.seed = np.tile(np.arange(*cell.seeds), len(log2_lr))
        self.batch = 2.0 ** log2_batch[self.setting]
        self.lr = torch.from_numpy(cell.unit * 2.0 ** log2_lr[self.setting])
        self.beta = torch.from_numpy(1 - 2.0 ** log2_alpha[self.setting])
        self.alive = np.arange(len(self.setting))
        self.total = np.zeros(len(self.setting))
        self.w = self.model.start().expand(len(self.setting), *shape).clone()
        self.x = self.w
        self.folded = cell.optimizer["name"] in FOLDED
        if self.folded:
            self.lr, self.beta = self.lr[:, None, None], self.beta[:, None, None]
        start = self._start if self.folded else vmap(self._start)
        self.state: State = start(self.beta, self._stack(self.w))

    def _stack(self, x: Tensor) -> Tensor:
        """Lanes as a rule takes them: as parameters of one shape, or as one each."""
        return x if self.folded else x[:, None]

    def _start(self, beta: Tensor, w: Tensor) -> State:
        return rules.init_state(self.make(**{self.momentum: beta}), w)

    def _update(
        self, beta: Tensor, lr: Tensor, g: Tensor, state: State, w: Tensor, t: int
    ) -> tuple[Tensor, State, Tensor]:
        rule = self.make(**{self.momentum: beta})
        w, state = rules.update(rule, g, state, w, Step(t, lr, lr, lr))
        return w, state, rules.readout(rule, w, state)

    @torch.no_grad()
    def step(self, t: int) -> NDArray[np.float64]:
        """One step of every lane; ||grad F(X_t)||_* before it, (lanes,)."""
        g = self.model.gradient(self.w)
        dual = self.model.dual_of(g if self.x is self.w else self.model.gradient(self.x)).numpy()
        self.total = self.total + dual
        noise = torch.from_numpy(self.noise.means(t, self.seed, self.batch))
        g = self._clipped(g + noise.reshape(g.shape))
        update = partial(self._update, t=t)
        run = update if self.folded else vmap(update)
        w, self.state, x = run(self.beta, self.lr, self._stack(g), self.state, self._stack(self.w))
        self.w, self.x = (w, x) if self.folded else (w[:, 0], x[:, 0])
        return dual

    def _clipped(self, g: Tensor) -> Tensor:
        if not self.clip:
            return g
        size = torch.linalg.vector_norm(g, dim=(-2, -1), keepdim=True)
        return g * (self.clip / size).clamp(max=1.0)

    def end(self, over: NDArray[np.bool_]) -> None:
        """Drop lanes that have ended."""
        keep = torch.from_numpy(np.flatnonzero(~over))
        left = ~over
        self.alive, self.setting, self.seed = self.alive[left], self.setting[left], self.seed[left]
        self.batch, self.total = self.batch[left], self.total[left]
        alike = self.x is self.w
        self.lr, self.beta, self.w = self.lr[keep], self.beta[keep], self.w[keep]
        self.x = self.w if alike else self.x[keep]
        self.state = {key: value[keep] for key, value in self.state.items()}


def _param(cell: Cell, shape: tuple[int, ...]) -> Param:
    """X as an optimizer sees it.

    In the diagonal mode a coordinate is the singular value of a rank-one part, so X is a stack of
    1 x 1 matrices, whose polar factor is the sign. Normalised SGD divides by the norm of the whole.
    """
    parts = shape[0] if shape[1] == 1 and cell.optimizer["name"] != "nsgd" else 1
    return Param("x", "hidden", shape, shape, parts=parts)
