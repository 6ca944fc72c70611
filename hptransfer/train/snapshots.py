"""Snapshots of a unit between two steps: written, read again, and refused where damaged."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hptransfer.train.lanes import Lanes

FORMAT = 2  # 2: groups name their parameters


class UnusableError(Exception):
    """A snapshot from which these runs cannot go on; its text ends `its snapshot ...`."""


def writer(lanes: Lanes, step: int, seconds: float) -> Callable[[Path], None]:
    """A function that saves the state after `step` steps, which took `seconds`.

    It raises UnusableError where the state is one that could not be read again.
    """
    keys = tuple(spec.key for spec in lanes.specs)

    def write(path: Path) -> None:
        head = {"format": FORMAT, "keys": keys, "step": step, "seconds": seconds}
        whole = {**head, **lanes.snapshot()}
        if lanes.foreign is None:
            torch.save(whole, path)
        else:
            _save_foreign(whole, path)

    return write


def _save_foreign(whole: dict[str, Any], path: Path) -> None:
    """Save a state that an optimizer of somebody else's filled, and see that it can be read."""
    try:
        torch.save(whole, path)
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:  # of the disk
        raise
    except Exception as error:  # whatever its own objects raise in the pickling
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"the optimizer's state holds a {named[1]}" if named else _line(error)
        raise UnusableError(f"could not be read again: {why}") from None


def restore(lanes: Lanes, path: Path) -> tuple[int, float]:
    """Load a snapshot in place; its step and its seconds.

    Raises UnusableError where it is damaged, of other runs or of another version. The lanes may
    then hold a part of it.
    """
    saved = _read(path)
    if saved.get("format") != FORMAT:
        raise UnusableError("is of another version")
    try:
        if tuple(saved["keys"]) != tuple(spec.key for spec in lanes.specs):
            raise UnusableError("is of other runs")
        step, seconds = int(saved["step"]), float(saved["seconds"])
        if not 0 < step < lanes.spec.steps:
            raise UnusableError(f"is of step {step} of {lanes.spec.steps}")
        lanes.restore(saved)
    except torch.OutOfMemoryError:  # a RuntimeError, as are tensors of another shape
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UnusableError(f"lacks what its runs need ({_line(error)})") from None
    return step, seconds


def _read(path: Path) -> dict[str, Any]:
    """The whole file, checked against the checksums that torch stores and does not compare."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (part := archive.testzip()) is not None:
                raise UnusableError(f"is damaged (checksum of {part})")
        saved = torch.load(path, map_location="cpu", weights_only=True)  # no second copy on a GPU
    except UnusableError:
        raise
    except Exception as error:  # damaged bytes raise whatever the parsers happen to meet
        raise UnusableError(f"is damaged ({_line(error)})") from None
    if not isinstance(saved, dict):
        raise UnusableError(f"is damaged (holds a {type(saved).__name__})")
    return saved


def _line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
