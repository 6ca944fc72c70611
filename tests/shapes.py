"""The type checker that runs in the tests, on every function that takes or gives a tensor.

Pyright checks the other types; here the shapes that it cannot know are checked, and that a tensor
is one. Functions without tensors stay as they are: their annotations name classes that are imported
for pyright alone.
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
