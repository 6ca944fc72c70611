"""Optuna's samplers by name, and Optuna kept quiet."""

import contextlib
import importlib
import inspect
import re
import warnings
from collections.abc import Generator

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from hptransfer.errors import InputError, suggest


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
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError as error:
            raise lacks_package(f"sampler: {name!r}", error) from None
        if isinstance(found, type) and issubclass(found, BaseSampler):
            return found
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


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Optuna's log lines and its warnings about experimental samplers are not for our users."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
