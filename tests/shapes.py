"""The type checker of the tests, for every function with a tensor among arguments or results.

It checks shapes, which pyright cannot know, and that a tensor is one. It skips functions without
tensors, because some of their annotations name classes that only pyright imports.
"""

from collections.abc import Callable
from typing import TypeVar

from beartype import BeartypeConf, beartype

F = TypeVar("F", bound=Callable[..., object])


_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for pyright


def checked(function: F) -> F:
    hints = getattr(function, "__annotations__", {}).values()
    takes_tensors = any("Tensor" in str(hint) for hint in hints)
    return _beartype(function) if takes_tensors else function
