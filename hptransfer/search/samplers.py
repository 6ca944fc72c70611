"""Optuna's samplers on the log2 lr grid: the bracket as one of them, and proposals by replay.

A replay is an in-memory study that is asked and told batch by batch. The records give the answers,
so a killed search goes on with the points that it would have tried.
"""

import contextlib
import copy
import hashlib
import importlib
import inspect
import math
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hptransfer.analysis.statuses import finished
from hptransfer.errors import InputError, suggest
from hptransfer.search import bracket, proxy
from hptransfer.search.proxy import Propose
from hptransfer.search.trials import Point, by_trial, finite_losses, key, on_first_seed
from hptransfer.spec import LR_STEP, canonical
from hptransfer.suite.resolved import Suite

Space = dict[str, FloatDistribution]


class BracketSampler(BaseSampler):
    """The bracket as an Optuna sampler, for `trial.suggest_float("log2_lr", -30, 6)`.

    Stops the study at its end. A failed or pruned trial counts as diverged. Arguments: octaves.
    """

    def __init__(self, start: tuple[float, float], limits: tuple[float, float]) -> None:
        self.start, self.limits = start, limits

    def infer_relative_search_space(self, *_: Any, **__: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> float:
        """Next point. Raises InputError for another parameter, TrialPruned when finished."""
        if param_name != "log2_lr" or not isinstance(param_distribution, FloatDistribution):
            raise InputError(
                f"BracketSampler: got parameter {param_name!r}, searches the float 'log2_lr' alone",
                "name another sampler to search further hyperparameters",
            )
        trials = study.get_trials(deepcopy=False)
        if not (missing := self._missing(trials, param_distribution)):
            raise optuna.TrialPruned("the bracket is finished")
        running = {
            other.params.get("log2_lr")
            for other in trials
            if not other.state.is_finished() and other.number != trial.number
        }
        # If more workers ask than the stage has points, the rest repeat one.
        return next((lr for lr in missing if lr not in running), missing[0])

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Stop the study when nothing is missing after this trial."""
        if not isinstance(space := trial.distributions.get("log2_lr"), FloatDistribution):
            return
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        own = copy.copy(trial)  # the trial as Optuna stores it after this call
        own.state, own.values = state, list(values) if values else None
        if not self._missing([*others, own], space):
            # Outside study.optimize there is no loop to stop, and Optuna raises.
            with contextlib.suppress(RuntimeError):
                study.stop()

    def _missing(self, trials: Sequence[FrozenTrial], space: FloatDistribution) -> list[float]:
        limits = max(self.limits[0], space.low), min(self.limits[1], space.high)
        losses: dict[float, float] = {}
        for trial in trials:
            if trial.state.is_finished() and "log2_lr" in trial.params:
                lr = float(trial.params["log2_lr"])
                loss = trial.values[0] if trial.state == TrialState.COMPLETE else math.inf
                losses[lr] = min(loss, losses.get(lr, math.inf))
        start = max(self.start[0], limits[0]), min(self.start[1], limits[1])
        return bracket.bracket(losses, start, limits)


def make_sampler(name: str, seed: int) -> BaseSampler:
    """A sampler by short name (`tpe`, `gp`, `random`...) or `pkg.mod:Class`, seeded.

    Raises InputError: unknown name, missing package, arguments that a name cannot give.
    """
    kind = _sampler_class(name)
    seeded = {"seed": seed} if "seed" in inspect.signature(kind).parameters else {}
    try:
        with quiet():
            return kind(**seeded)
    except ImportError as error:
        raise lacks_package(f"sampler: {name!r}", error) from None
    except TypeError as error:
        raise InputError(
            f"sampler: {name!r} needs arguments that a name cannot give ({error})",
            "subclass it with defaults and name that class as pkg.mod:Class",
        ) from None


def _sampler_class(name: str) -> type[BaseSampler]:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            sampler = getattr(importlib.import_module(module), attribute, None)
        except ImportError as error:
            raise lacks_package(f"sampler: {name!r}", error) from None
        if isinstance(sampler, type) and issubclass(sampler, BaseSampler):
            return sampler
        raise InputError(
            f"sampler: {name!r} is not a subclass of optuna.samplers.BaseSampler",
            "give it as pkg.mod:Class",
        )
    known = {
        attribute.lower().removesuffix("sampler"): getattr(optuna.samplers, attribute)
        for attribute in optuna.samplers.__all__
        if re.fullmatch(r"(?!Base).*Sampler", attribute)
    }
    short = name.lower().removesuffix("sampler")
    if short not in known:
        names = sorted(["bracket", *known])
        raise InputError(
            f"sampler: unknown sampler {name!r}",
            suggest(short, names) or f"samplers: {', '.join(names)}, or pkg.mod:Class",
        )
    return known[short]


def lacks_package(place: str, error: ImportError) -> InputError:
    return InputError(
        f"{place} needs the package {error.name!r}, which is not installed here",
        f"pip install {error.name}",
    )


def propose(
    suite: Suite,
    label: str,
    n: int,
    rows: pd.DataFrame,
    *,
    replays: "dict[str, _Replay] | None" = None,
) -> list[tuple[Point, int]]:
    """(point, seed) pairs that the search at axis value `n` still lacks; [] when finished.

    Like proxy.propose, with the sampler that the suite names. It proposes batches of `suite.ask`
    points, a random search all at once, up to `trials` points. `replays`: those to go on from, by
    default those of the records. Raises InputError for a sampler that cannot be made or cannot
    search this space.
    """
    known = _replays if replays is None else replays
    if suite.setting(label, "sampler") == "bracket":
        return proxy.propose(suite, label, n, rows)
    space = search_space(suite, label, bracket.grid_and_limits(suite, label)[0], LR_STEP)
    ranges = {key: [d.low, d.high, d.log] for key, d in space.items()}
    search = (suite.setting(label, "sampler"), suite.setting(label, "trials"), suite.ask)
    name = canonical([suite.name, label, n])
    identity = canonical([name, search, ranges])
    rows = finished(rows)
    losses = on_first_seed(by_trial(rows, finite_losses(rows)))
    with quiet():
        replay = known.get(identity)
        # A replay is void if the records no longer hold its answers: another store, or a
        # record that was taken out.
        if replay is None or any(losses.get(key) != loss for key, loss in replay.told.items()):
            seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
            replay = known[identity] = _Replay(*search, seed, space)
        if missing := replay.advance(losses):
            return [(point, 0) for point in missing]
    return proxy.further_seeds(replay.points, suite.seeds, rows)


def aside() -> Propose:
    """`propose` on copies of the replays, for a forecast, whose losses are made up."""
    copies: dict[str, _Replay] = {}
    for identity, replay in _replays.items():
        with contextlib.suppress(Exception):  # of a foreign sampler: its search begins anew
            copies[identity] = copy.deepcopy(replay)
    return partial(propose, replays=copies)


class _Replay:
    """One search, up to the first batch whose results are not all known.

    The whole replay has one seed: a sampler that follows a sequence (qmc, cmaes) would begin it
    anew with each new seed.
    """

    def __init__(self, sampler: str, trials: int, ask: int, seed: int, space: Space) -> None:
        self.sampler, self.trials, self.space = sampler, trials, space
        self.study = optuna.create_study(sampler=make_sampler(sampler, seed))
        # A random search learns nothing from its trials, so no trial waits for another.
        self.ask = trials if type(self.study.sampler) is optuna.samplers.RandomSampler else ask
        self.told: dict[tuple[float, str], float] = {}
        self.points: list[Point] = []
        self.batch: list[tuple[optuna.Trial, Point]] = []

    def advance(self, losses: Mapping[tuple[float, str], float]) -> list[Point]:
        """Tell the known losses; points of the first batch that lacks some, without repetition.

        Raises AssertionError where a batch is empty although trials are left.
        """
        while True:
            if missing := {k: p for _, p in self.batch if (k := key(p)) not in losses}:
                return list(missing.values())
            for trial, point in self.batch:
                self.told[key(point)] = losses[key(point)]
                self.study.tell(trial, losses[key(point)])
                self.points.append(point)
            left = self.trials - len(self.points)
            self.batch = [self._ask() for _ in range(min(self.ask, left))]
            if not left:
                return []
            if not self.batch:
                raise AssertionError(f"{self.sampler}: no batch of the {left} trials that are left")

    def _ask(self) -> tuple[optuna.Trial, Point]:
        try:
            trial = self.study.ask(dict[str, BaseDistribution](self.space))
        except ImportError as error:
            raise lacks_package(f"sampler: {self.sampler!r}", error) from None
        except ValueError as error:
            raise InputError(
                f"sampler: {self.sampler!r} cannot search this space ({error})",
                "tpe, gp and random search every space",
            ) from None
        values = {  # six digits: machines whose last bits differ share their runs
            key: min(max(float(f"{trial.params[key]:.6g}"), space.low), space.high)
            for key, space in self.space.items()
            if key != "log2_lr"
        }
        return trial, (float(trial.params["log2_lr"]), values)


_replays: dict[str, _Replay] = {}


def search_space(
    suite: Suite, label: str, lr: tuple[float, float], step: float | None = None
) -> Space:
    """What a search of this label ranges over: log2 lr and its hyperparameters."""
    space = {"log2_lr": FloatDistribution(*lr, step=step)}
    for name, values in suite.optimizers[label].search.items():
        space[name] = FloatDistribution(values.low, values.high, log=values.log)
    for name, span in suite.tuned.get(label, {}).items():
        space[name] = FloatDistribution(2.0**span.floor, 2.0**span.ceiling, log=True)
    return space


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Without Optuna's log lines and its warnings about experimental samplers."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
