"""Speeds, costs and parameters that were found before, kept in the user's cache folder."""

import contextlib
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hptransfer.spec import digest


class Known:
    """Lists by key, of what JSON holds. A cache that is lost or damaged is filled again.

    The file keeps each as its text and a digest of it: whatever else is found there is damage.
    """

    def __init__(self) -> None:
        self._path = _cache() / "hptransfer" / "known.json"
        self._texts: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(self._path.read_text())
            for key, entry in found.items() if isinstance(found, dict) else ():
                match entry:
                    case [str(text), str(own)] if own == _digest(key, text):
                        self._texts[key] = text

    @staticmethod
    def key(*parts: Any) -> str:
        """Of whatever JSON holds, and of torch's version."""
        return digest(json.dumps([torch.__version__, *parts], sort_keys=True))

    def get(self, key: str) -> list[Any] | None:
        text = self._texts.get(key)
        return None if text is None else json.loads(text)

    def put(self, key: str, values: list[Any]) -> None:
        """Nothing happens where it holds these already, or where the folder cannot be written."""
        text = json.dumps(values)
        if self._texts.get(key) == text:
            return
        self._texts[key] = text
        entries = {own: [each, _digest(own, each)] for own, each in self._texts.items()}
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(entries))
            temporary.replace(self._path)


def _digest(key: str, text: str) -> str:
    return digest(json.dumps([key, text]))


def _cache() -> Path:
    """The user's cache folder. Where no home is known, a place that holds no file."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else Path.home() / ".cache"
    except RuntimeError:
        return Path(os.devnull)


@cache
def sources() -> str:
    """Identity of this package's code, with which what it counts may change."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:20]
