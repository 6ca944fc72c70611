"""Optuna proposes, the records archive: samplers on the log2 lr grid, and studies to look at.

Proposals are replayed: an in-memory study is asked and told batch by batch, answered from the
records, so a killed search goes on with the points it would have tried. The persistent study is a
copy of the records to look at; nothing is decided by it.
"""

import contextlib
import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from hptransfer.errors import InputError
from hptransfer.records.store import Store
from hptransfer.search import bracket, database
from hptransfer.search.bracket import Point, Propose
from hptransfer.search.samplers import lacks_package, make_sampler, quiet
from hptransfer.spec import LR_STEP, canonical, cell_of
from hptransfer.suite.claim import Suite
from hptransfer.suite.ranges import LR_OCTAVES, search_range

if TYPE_CHECKING:
    import pandas as pd

# Whatever Optuna trips over in a damaged journal: the records say it all again.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OptunaError)
_Space = dict[str, FloatDistribution]
_Studies = dict[str, tuple[dict[str, Any], dict[str, FrozenTrial]]]  # name -> attributes, trials
_NAME = re.compile(r"(.+)/[^/]+/[a-z_]+=\d+/[0-9a-f]{8}")
SUITE_ATTR = "hptransfer.suite"


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
        # With more workers than the stage has points, the surplus repeats one.
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
        own = copy.copy(trial)  # what is stored when this returns
        own.state, own.values = state, list(values) if values else None
        if not self._missing([*others, own], space):
            # Outside of study.optimize there is no loop to stop; Optuna tells only by raising.
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


def propose(
    suite: Suite, label: str, n: int, rows: "pd.DataFrame", around: float | None = None, *,
    replays: "dict[str, _Replay] | None" = None,
) -> list[tuple[Point, int]]:  # fmt: skip
    """(point, seed) pairs that the search at axis value `n` still lacks; [] when finished.

    Like bracket.propose, with the sampler that the suite names: one batch of `suite.ask` trials at
    a time (of a random search all), `trials` proposals in all. `replays`: those to go on from, by
    default those of the records. Raises InputError without a sampler.
    """
    known = _replays if replays is None else replays
    if suite.setting(label, "sampler") == "bracket":
        return bracket.propose(suite, label, n, rows, around)
    space = _space(suite, label, bracket.grid_and_limits(suite, label, around)[0], LR_STEP)
    ranges = {key: [d.low, d.high, d.log] for key, d in space.items()}
    search = (suite.setting(label, "sampler"), suite.setting(label, "trials"), suite.ask)
    name = canonical([suite.name, label, n])
    identity = canonical([name, search, ranges])
    losses = bracket.on_first_seed(bracket.finished(rows, bracket.clipped(rows)))
    with quiet():
        replay = known.get(identity)
        # Another store, or a record taken out: then this replay was told what is not so.
        if replay is None or any(losses.get(key) != loss for key, loss in replay.told.items()):
            seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
            replay = known[identity] = _Replay(*search, seed, space)
        if missing := replay.advance(losses):
            return [(point, 0) for point in missing]
    return bracket.further_seeds(replay.points, suite.seeds, rows)


def aside() -> Propose:
    """`propose` on copies of the replays, for a forecast, whose losses are made up."""
    copies: dict[str, _Replay] = {}
    for identity, replay in _replays.items():
        with contextlib.suppress(Exception):  # of a foreign sampler: its search begins anew
            copies[identity] = copy.deepcopy(replay)
    return partial(propose, replays=copies)


class _Replay:
    """One search as far as its results are known.

    One seed for the whole replay: it starts from the first batch each time, and samplers that
    follow a sequence (qmc, cmaes) would begin it anew with every new seed.
    """

    def __init__(self, sampler: str, trials: int, ask: int, seed: int, space: _Space) -> None:
        self.sampler, self.trials, self.space = sampler, trials, space
        self.study = optuna.create_study(sampler=make_sampler(sampler, seed))
        # a random search learns nothing from its trials, so none need wait for others
        self.ask = trials if type(self.study.sampler) is optuna.samplers.RandomSampler else ask
        self.told: dict[tuple[float, str], float] = {}
        self.points: list[Point] = []
        self.batch: list[tuple[optuna.Trial, Point]] = []

    def advance(self, losses: Mapping[tuple[float, str], float]) -> list[Point]:
        """Tell what is known; the points of the first batch that is not, without repetition.

        Raises AssertionError where a batch is empty although trials are left.
        """
        while True:
            if missing := {k: p for _, p in self.batch if (k := bracket.key(p)) not in losses}:
                return list(missing.values())
            for trial, point in self.batch:
                self.told[bracket.key(point)] = losses[bracket.key(point)]
                self.study.tell(trial, losses[bracket.key(point)])
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
        values = {  # six digits, so that machines which differ in the last bit share their runs
            key: min(max(float(f"{trial.params[key]:.6g}"), space.low), space.high)
            for key, space in self.space.items()
            if key != "log2_lr"
        }
        return trial, (float(trial.params["log2_lr"]), values)


_replays: dict[str, _Replay] = {}


def sync(suite: Suite, rows: "pd.DataFrame", storage: str | None, store: Store) -> None:
    """Add the finished search runs that the persistent study lacks; one study a lr curve.

    `rows`: rows of metrics.select. `storage`: an Optuna URL, None for the journal beside the
    records, which is rebuilt from `rows` where it is lost or damaged.
    Raises InputError: a storage that cannot be opened, or that belongs to something else.
    """
    studies = _studies(suite, rows)
    if not studies and storage is None:
        return  # with a storage, go on: it may belong to another suite
    with store.exclusive(store.study_url().name) if studies else quiet(), quiet():
        if storage is not None:
            with database.opened(storage) as (found, place):
                _add(suite, studies, found, place)
            return
        path = store.study_url()
        try:
            if path.exists() and not path.read_bytes().endswith(b"\n"):
                raise ValueError("torn by a kill")
            _add(suite, studies, _journal(path), str(path))
        except InputError:
            raise
        except _DAMAGE:
            with store.replacing(path.name) as temporary:
                _add(suite, studies, _journal(temporary), str(path))


def _studies(suite: Suite, rows: "pd.DataFrame") -> _Studies:
    """What the persistent studies must hold, by name."""
    curves: dict[tuple[str, int], tuple[_Space, dict[str, FrozenTrial]]] = {}
    studies: _Studies = {}
    names = ("optimizer", "n", "stage", "status", "log2_lr", "hp_point", "seed", "key", "finished")
    columns = zip(*(rows[x] for x in (*names, "seconds")), bracket.clipped(rows), strict=True)
    for label, n, stage, status, log2_lr, hp, seed, key, finished, seconds, loss in columns:
        if stage != "search" or status == "failed":
            continue
        if (label, n) not in curves:
            curves[label, n] = _space(suite, label, LR_OCTAVES), {}
            attrs = {SUITE_ATTR: suite.name, "optimizer": label, suite.axis: n}
            studies[_study_name(suite, label, n)] = attrs, curves[label, n][1]
        space, trials = curves[label, n]
        values = {"log2_lr": log2_lr, **json.loads(hp)}
        if any(not d.low <= values[name] <= d.high for name, d in space.items()):
            continue  # searched in a wider range in the past: no trial of this search
        trials[key] = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.COMPLETE,
            value=loss,
            datetime_start=datetime.fromtimestamp(finished - seconds),
            datetime_complete=datetime.fromtimestamp(finished),
            params=values,
            distributions=dict(space),
            user_attrs={"key": key, "seed": seed, "status": status},
            system_attrs={},
            intermediate_values={},
        )
    return studies


def _space(suite: Suite, label: str, lr: tuple[float, float], step: float | None = None) -> _Space:
    space = {"log2_lr": FloatDistribution(*lr, step=step)}
    for key, text in suite.optimizers[label].search.items():
        low, high, log = search_range(text)
        space[key] = FloatDistribution(low, high, log=log)
    return space


def _study_name(suite: Suite, label: str, n: int) -> str:
    """`quickstart/adamw/width=32/<8 hex>`; the hash is the cell's, with ranges for values."""
    spec = suite.template(label, n).to_json()
    spec["hp"] = {**spec["hp"], **suite.optimizers[label].search}
    return f"{suite.name}/{label}/{suite.axis}={n}/{cell_of(spec)[:8]}"


def _journal(path: Path) -> BaseStorage:
    place = str(path.resolve())  # the lock is a link to it: a dangling one is never taken over
    lock = JournalFileSymlinkLock(place, grace_period=5)  # seconds, then it is a dead one's
    return JournalStorage(JournalFileBackend(place, lock_obj=lock))


def _add(suite: Suite, studies: _Studies, storage: BaseStorage, place: str) -> None:
    present = storage.get_all_studies()
    owners = {
        # A run killed in between left a study with its name alone.
        study.user_attrs.get(SUITE_ATTR) or (_NAME.fullmatch(study.study_name) or ("", ""))[1]
        for study in present
    }
    if owners and suite.name not in owners:
        suites = sorted(owner for owner in owners if owner)
        held = f"of suite {', '.join(suites)}" if suites else "that hptransfer did not write"
        names = ", ".join(sorted(study.study_name for study in present)[:3])
        raise InputError(
            f"{place}: holds {len(present)} studies {held} ({names}), "
            f"needs an empty storage or one of suite {suite.name}",
            "name another storage; nothing was written",
            cures=("storage",),
        )
    for name, (attrs, trials) in studies.items():
        study = optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True
        )
        for key in attrs.keys() - study.user_attrs.keys():
            study.set_user_attr(key, attrs[key])
        have = {trial.user_attrs.get("key") for trial in study.get_trials(deepcopy=False)}
        study.add_trials(trial for key, trial in trials.items() if key not in have)
