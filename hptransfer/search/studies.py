"""The persistent Optuna study: a copy of the records to look at. Nothing is decided by it."""

import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import optuna
import pandas as pd
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from hptransfer.analysis.frame import groups
from hptransfer.analysis.statuses import finished
from hptransfer.errors import InputError
from hptransfer.records.store import Store
from hptransfer.search import database
from hptransfer.search.samplers import quiet, search_space
from hptransfer.search.trials import finite_losses
from hptransfer.suite.ranges import LR_OCTAVES
from hptransfer.suite.resolved import Suite

# Optuna raises these at a damaged journal, which the records make anew.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OptunaError)
_NAME = re.compile(r"(.+)/[^/]+/[a-z_]+=\d+/[0-9a-f]{8}")
SUITE_ATTR = "hptransfer.suite"


@dataclass(frozen=True)
class _Study:
    """What a persistent study must hold: its attributes, and its trials by the key of their run."""

    name: str
    attributes: dict[str, str | int]
    trials: dict[str, FrozenTrial]


def sync(suite: Suite, rows: pd.DataFrame, storage: str | None, store: Store) -> None:
    """Add the finished runs that the persistent studies lack; one study per lr curve.

    `rows`: rows of analysis.frame.select. `storage`: an Optuna URL, or None for the journal beside
    the records. A journal that is lost or damaged is made anew from `rows`.
    Raises InputError for a storage that cannot be opened or belongs to something else.
    """
    studies = _studies(suite, rows)
    if not studies and storage is None:
        return  # a storage is opened all the same: it may belong to another suite
    with store.exclusive(store.study_url().name) if studies else quiet(), quiet():
        if storage is not None:
            with database.opened(storage) as (opened, place):
                _add(suite, studies, opened, place)
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


def _studies(suite: Suite, rows: pd.DataFrame) -> list[_Study]:
    rows = finished(rows)
    rows = rows.assign(capped=finite_losses(rows))
    parts = groups(rows, tuning=True).items()
    return [_study(suite, label, n, part) for (label, n), part in parts]


def _study(suite: Suite, label: str, n: int, rows: pd.DataFrame) -> _Study:
    """The study of one search, from its finished rows with their capped losses."""
    space = search_space(suite, label, LR_OCTAVES)
    trials: dict[str, FrozenTrial] = {}
    names = ("status", "log2_lr", "hp_point", "seed", "key", "finished", "seconds", "capped")
    columns = zip(*(rows[name] for name in names), strict=True)
    for status, log2_lr, hp, seed, key, ended, seconds, loss in columns:
        values = {"log2_lr": log2_lr, **json.loads(hp)}
        if any(not d.low <= values[name] <= d.high for name, d in space.items()):
            continue  # from a search over a wider range, so no trial of this one
        trials[key] = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.COMPLETE,
            value=loss,
            datetime_start=datetime.fromtimestamp(ended - seconds),
            datetime_complete=datetime.fromtimestamp(ended),
            params=values,
            distributions=dict(space),
            user_attrs={"key": key, "seed": seed, "status": status},
            system_attrs={},
            intermediate_values={},
        )
    attributes = {SUITE_ATTR: suite.name, "optimizer": label, suite.axis: n}
    return _Study(study_name(suite, label, n), attributes, trials)


def study_name(suite: Suite, label: str, n: int) -> str:
    """`quickstart/adamw/width=32/<8 hex>`: the cell of the template, its ranges for its values."""
    run = suite.template(label, n)
    ranges: dict[str, object] = {
        key: values.text for key, values in suite.optimizers[label].search.items()
    }
    ranges |= {key: [*vars(span).values()] for key, span in suite.tuned.get(label, {}).items()}
    cell = replace(run, hp={**run.hp, **ranges}).cell
    return f"{suite.name}/{label}/{suite.axis}={n}/{cell[:8]}"


def _journal(path: Path) -> BaseStorage:
    # The lock is a link to this path; Optuna never takes over a link that leads nowhere.
    place = str(path.resolve())
    lock = JournalFileSymlinkLock(place, grace_period=5)  # seconds until a lock counts as left over
    return JournalStorage(JournalFileBackend(place, lock_obj=lock))


def _add(suite: Suite, studies: list[_Study], storage: BaseStorage, place: str) -> None:
    present = storage.get_all_studies()
    owners = {
        # A kill can leave a study that has a name and no attributes yet.
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
    for each in studies:
        study = optuna.create_study(
            storage=storage, study_name=each.name, direction="minimize", load_if_exists=True
        )
        for key in each.attributes.keys() - study.user_attrs.keys():
            study.set_user_attr(key, each.attributes[key])
        have = {trial.user_attrs.get("key") for trial in study.get_trials(deepcopy=False)}
        study.add_trials(trial for key, trial in each.trials.items() if key not in have)
