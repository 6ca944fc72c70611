"""Optuna proposes, the records archive: samplers on the log2 lr grid, and studies to look at.

Proposals are replayed: an in-memory study is asked and told batch by batch, the answers come from
the records. A search that was killed therefore goes on with the points it would have tried. The
persistent study is a copy of the records for optuna-dashboard and is never read to decide anything.
"""

import contextlib
import hashlib
import importlib
import inspect
import json
import math
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from hptransfer import bracket
from hptransfer.bracket import Point
from hptransfer.registry import InputError, suggest
from hptransfer.spec import LR_STEP, canonical, cell_of
from hptransfer.store import Store
from hptransfer.suite import LR_OCTAVES, Suite, search_range

if TYPE_CHECKING:
    import pandas as pd

# Whatever Optuna trips over in a damaged journal: the records say it all again.
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    optuna.exceptions.OptunaError,
)
_Space = dict[str, FloatDistribution]
_Attrs = dict[str, Any]
_Trials = dict[str, FrozenTrial]
_Studies = dict[str, tuple[_Attrs, _Trials]]
SUITE_ATTR = "hptransfer.suite"
_LOCK_GRACE = 5  # seconds until the journal lock of a killed process is taken over


class BracketSampler(BaseSampler):
    """The bracket as an Optuna sampler, for `trial.suggest_float("log2_lr", -30, 6)`.

    Stops the study when the bracket is finished. A failed or pruned trial counts as diverged.
    `start`, `limits`: octaves.
    """

    def __init__(self, start: tuple[float, float], limits: tuple[float, float]) -> None:
        self.start = start
        self.limits = limits

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
        if study.direction != optuna.study.StudyDirection.MINIMIZE:
            raise InputError("BracketSampler: got a study that maximizes, needs one that minimizes")
        trials = study.get_trials(deepcopy=False)
        missing = self._missing(trials, param_distribution)
        if not missing:
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
        distribution = trial.distributions.get("log2_lr")
        if not isinstance(distribution, FloatDistribution):
            return
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        loss = values[0] if values and state == TrialState.COMPLETE else math.inf
        own = {float(trial.params["log2_lr"]): loss}
        if not self._missing(others, distribution, own):
            # Outside of study.optimize there is no loop to stop; Optuna tells only by raising.
            with contextlib.suppress(RuntimeError):
                study.stop()

    def _missing(
        self,
        trials: Sequence[FrozenTrial],
        distribution: FloatDistribution,
        known: Mapping[float, float] | None = None,
    ) -> list[float]:
        low = max(self.limits[0], distribution.low)
        high = min(self.limits[1], distribution.high)
        losses = dict(known or {})
        for trial in trials:
            if trial.state.is_finished() and "log2_lr" in trial.params:
                lr = float(trial.params["log2_lr"])
                complete = trial.state == TrialState.COMPLETE and trial.value is not None
                loss = trial.values[0] if complete else math.inf
                losses[lr] = min(loss, losses.get(lr, math.inf))
        start = (max(self.start[0], low), min(self.start[1], high))
        return bracket.bracket(losses, start, (low, high))


def make_sampler(name: str, seed: int) -> BaseSampler:
    """A sampler by short name (`tpe`, `gp`, `random`...) or `pkg.mod:Class`, seeded.

    Raises InputError: unknown name, missing package, arguments that a name cannot give.
    """
    kind = _sampler_class(name)
    parameters = inspect.signature(kind).parameters
    given: dict[str, Any] = {"seed": seed, "warn_independent_sampling": False}
    needed = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if set(needed) - set(given):
        raise InputError(
            f"sampler: {name!r} needs arguments ({', '.join(needed)}), a name cannot give them",
            "subclass it with defaults and name that class as pkg.mod:Class",
        )
    try:
        with _quiet():
            return kind(**{key: value for key, value in given.items() if key in parameters})
    except ImportError as error:
        raise _lacks_package(f"sampler: {name!r}", error) from None


def _sampler_class(name: str) -> type[BaseSampler]:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError as error:
            raise _lacks_package(f"sampler: {name!r}", error) from None
        if not (isinstance(found, type) and issubclass(found, BaseSampler)):
            raise InputError(
                f"sampler: {name!r} is not a subclass of optuna.samplers.BaseSampler",
                "give it as pkg.mod:Class",
            )
        return found
    known = {
        attribute.lower().removesuffix("sampler"): getattr(optuna.samplers, attribute)
        for attribute in optuna.samplers.__all__
        if attribute.endswith("Sampler") and not attribute.startswith("Base")
    }
    short = name.lower().removesuffix("sampler")
    if short not in known:
        names = sorted(["bracket", *known])
        raise InputError(
            f"sampler: unknown sampler {name!r}",
            suggest(short, names) or f"samplers: {', '.join(names)}, or pkg.mod:Class",
        )
    return known[short]


def _lacks_package(place: str, error: ImportError) -> InputError:
    return InputError(
        f"{place}: needs the package {error.name!r}, which is not installed here",
        f"pip install {error.name}",
    )


def propose(
    suite: Suite, label: str, n: int, rows: "pd.DataFrame", around: float | None = None
) -> list[tuple[Point, int]]:
    """(point, seed) pairs that the search at axis value `n` still lacks; [] when finished.

    Like bracket.propose, with the sampler that the suite names. The missing points of one batch of
    `suite.ask` trials at a time; the search ends after `trials` proposals, known or new.
    Raises InputError where the sampler cannot be had.
    """
    if suite.setting(label, "sampler") == "bracket":
        return bracket.propose(suite, label, n, rows, around)
    space = _space(suite, label, bracket.grid_and_limits(suite, label, around)[0], LR_STEP)
    ranges = {key: [d.low, d.high, d.log] for key, d in space.items()}
    search = (suite.setting(label, "sampler"), suite.setting(label, "trials"), suite.ask)
    name = canonical([suite.name, label, n])
    identity = canonical([name, search, ranges])
    answers = _answers(rows)
    with _quiet():
        replay = _replays.get(identity)
        # Another store, or a record taken out: then this replay was told what is not so.
        if replay is None or any(answers.get(key) != loss for key, loss in replay.told.items()):
            seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
            sampler, trials, ask = search
            replay = _replays[identity] = _Replay(sampler, seed, space, trials, ask)
        missing = replay.advance(answers)
    if missing:
        return [(point, 0) for point in missing]
    losses = bracket.finished(rows, seed=0)
    points = [(point, losses[_key(point)]) for point in replay.points]
    return bracket.further_seeds(points, suite.seeds, rows)


class _Replay:
    """One search as far as its results are known.

    One seed for the whole replay: it starts from the first batch each time, and samplers that
    follow a sequence (qmc, cmaes) would begin it anew with every new seed.
    """

    def __init__(self, sampler: str, seed: int, space: _Space, trials: int, ask: int) -> None:
        self.sampler, self.space, self.trials, self.ask = sampler, space, trials, ask
        self.study = optuna.create_study(sampler=make_sampler(sampler, seed))
        self.told: dict[tuple[float, str], float] = {}
        self.points: list[Point] = []
        self.batch: list[tuple[optuna.Trial, Point]] = []

    def advance(self, answers: Mapping[tuple[float, str], float]) -> list[Point]:
        """Tell what is known; the points of the first batch that is not, without repetition."""
        while True:
            missing = {_key(point): point for _, point in self.batch if _key(point) not in answers}
            if missing:
                return list(missing.values())
            for trial, point in self.batch:
                self.told[_key(point)] = answers[_key(point)]
                self.study.tell(trial, answers[_key(point)])
            self.points += [point for _, point in self.batch]
            size = min(self.ask, self.trials - len(self.points))
            self.batch = []
            if size <= 0:
                return []
            self.batch = [self._ask() for _ in range(size)]

    def _ask(self) -> tuple[optuna.Trial, Point]:
        try:
            trial = self.study.ask(dict[str, BaseDistribution](self.space))
        except ImportError as error:
            raise _lacks_package(f"sampler: {self.sampler!r}", error) from None
        except ValueError as error:
            raise InputError(
                f"sampler: {self.sampler!r} cannot search this space ({error})",
                "tpe, gp and random search every space",
            ) from None
        values = {
            key: min(max(float(f"{trial.params[key]:.6g}"), space.low), space.high)
            for key, space in self.space.items()
            if key != "log2_lr"
        }
        return trial, (float(trial.params["log2_lr"]), values)


_replays: dict[str, _Replay] = {}


def _key(point: Point) -> tuple[float, str]:
    return point[0], canonical(point[1])


def _clipped(rows: "pd.DataFrame") -> list[float]:
    """Losses clipped at the loss at init: samplers fit a surface, and infinity has none."""
    names = ("status", "loss", "loss_init")
    losses = [
        min(math.inf if status == "diverged" else loss, math.inf if math.isnan(init) else init)
        for status, loss, init in zip(*(rows[name] for name in names), strict=True)
    ]
    worst = max((loss for loss in losses if math.isfinite(loss)), default=0.0)
    return [min(loss, worst) if loss == math.inf else loss for loss in losses]


def _answers(rows: "pd.DataFrame") -> dict[tuple[float, str], float]:
    known = zip(
        rows["log2_lr"], rows["hp_point"], rows["seed"], rows["status"], _clipped(rows), strict=True
    )
    return {
        (lr, hp): loss for lr, hp, seed, status, loss in known if seed == 0 and status != "failed"
    }


def sync(suite: Suite, rows: "pd.DataFrame", storage: str | None, store: Store) -> None:
    """Add the finished search runs that the persistent study lacks; one study a lr curve.

    `rows`: rows of metrics.select. `storage`: an Optuna URL, None for the journal beside the
    records, which is rebuilt from `rows` where it is lost or damaged.
    Raises InputError: a storage that cannot be opened, or that belongs to something else.
    """
    studies = _studies(suite, rows)
    if not studies:
        return
    with store.exclusive("studies"), _quiet():
        if storage is not None:
            _sync_database(suite, studies, storage)
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
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror})",
                "free some space or check its permissions; the records are kept",
            ) from None


def _studies(suite: Suite, rows: "pd.DataFrame") -> _Studies:
    """What the persistent studies must hold, by name."""
    known: dict[tuple[str, int], tuple[_Space, _Attrs, _Trials]] = {}
    studies: _Studies = {}
    names = ("optimizer", "n", "stage", "status", "log2_lr", "hp_point", "seed", "key", "finished")
    columns = zip(*(rows[name] for name in names), rows["seconds"], _clipped(rows), strict=True)
    for label, n, stage, status, log2_lr, hp, seed, key, finished, seconds, loss in columns:
        if stage != "search" or status == "failed":
            continue
        if (label, n) not in known:
            attrs = {SUITE_ATTR: suite.name, "optimizer": label, suite.axis: n}
            known[label, n] = _space(suite, label, LR_OCTAVES), attrs, {}
            studies[_study_name(suite, label, n)] = known[label, n][1:]
        space, _, trials = known[label, n]
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
    lock = JournalFileSymlinkLock(str(path), grace_period=_LOCK_GRACE)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _add(suite: Suite, studies: _Studies, storage: BaseStorage, place: str) -> None:
    present = storage.get_all_studies()
    owners = {_owner(study.study_name, study.user_attrs) for study in present}
    if owners and suite.name not in owners:
        suites = sorted(owner for owner in owners if owner)
        held = f"of suite {', '.join(suites)}" if suites else "that hptransfer did not write"
        names = ", ".join(sorted(study.study_name for study in present)[:3])
        raise InputError(
            f"{place}: holds {len(present)} studies {held} ({names}), "
            f"needs an empty storage or one of suite {suite.name}",
            "name another --storage; nothing was written",
        )
    for name, (attrs, trials) in studies.items():
        study = optuna.create_study(
            storage=storage, study_name=name, direction="minimize", load_if_exists=True
        )
        for key in attrs.keys() - study.user_attrs.keys():
            study.set_user_attr(key, attrs[key])
        have = {trial.user_attrs.get("key") for trial in study.get_trials(deepcopy=False)}
        study.add_trials(trial for key, trial in trials.items() if key not in have)


def _owner(name: str, attrs: Mapping[str, Any]) -> str:
    """The suite that a study belongs to, "" for none of ours; a killed run left no attribute."""
    ours = re.fullmatch(r"(.+)/[^/]+/[a-z_]+=\d+/[0-9a-f]{8}", name)
    return attrs.get(SUITE_ATTR, ours[1] if ours else "")


def _sync_database(suite: Suite, studies: _Studies, url: str) -> None:
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    place = re.sub(r"//[^/]*@", "//***@", url.partition("?")[0])
    try:
        engine = sqlalchemy.create_engine(url)
        tables = set(sqlalchemy.inspect(engine).get_table_names())
        engine.dispose()
        if tables and not tables >= {"studies", "trials", "version_info"}:
            raise InputError(
                f"{place}: holds tables that are not Optuna's ({', '.join(sorted(tables)[:3])})",
                "name a new or an empty database; nothing was written",
            )
        storage = RDBStorage(url)
        try:
            _add(suite, studies, storage, place)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except ImportError as error:
        raise _lacks_package(place, error) from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        why = str(error.__cause__ or error).split("\n")[0]
        raise InputError(
            f"{place}: cannot be used ({why})",
            "give an Optuna URL such as sqlite:///studies.db, or leave --storage out",
        ) from None


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Optuna's log lines and its warnings about experimental samplers are not for our users."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
