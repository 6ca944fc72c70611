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
    """Lists by key, of what JSON holds. A cache that is lost or damaged is filled again."""

    def __init__(self) -> None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._path = base / "hptransfer" / "known.json"
        self._values: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_text())
            self._values = found if isinstance(found, dict) else {}

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
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._values))
            temporary.replace(self._path)


@cache
def sources() -> str:
    """Identity of this package's code, with which what it counts may change."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:20]
