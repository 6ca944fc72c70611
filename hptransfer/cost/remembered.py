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
    """Lists of JSON values by key, in a file: the digest of its text, then the text.

    A file whose digest is wrong was damaged, or cut off: it counts as none, and is written again.
    """

    def __init__(self) -> None:
        self._path = _cache() / "hptransfer" / "known.json"
        self._values: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, UnicodeDecodeError):
            told, _, text = self._path.read_text(encoding="utf-8").partition("\n")
            if told == digest(text):
                self._values = json.loads(text)

    @staticmethod
    def key(*parts: Any) -> str:
        """Of whatever JSON holds, and of torch's version."""
        return digest(json.dumps([torch.__version__, *parts], sort_keys=True))

    def get(self, key: str) -> list[Any] | None:
        return self._values.get(key)

    def put(self, key: str, values: list[Any]) -> None:
        """Nothing happens where it holds these already, or where the folder cannot be written."""
        if self._values.get(key) == values:
            return
        self._values[key] = values
        temporary = self._path.with_suffix(f".{os.getpid()}")
        text = json.dumps(self._values)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(f"{digest(text)}\n{text}", encoding="utf-8")
            temporary.replace(self._path)


def _cache() -> Path:
    """The user's cache folder. Where no home is known, a place that holds no file."""
    told = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(told) if told else Path.home() / ".cache"
    except RuntimeError:
        return Path(os.devnull)


@cache
def sources() -> str:
    """Identity of this package's code, with which what it counts may change."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:20]
