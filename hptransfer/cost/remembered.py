"""The cache of costs, parameters and speeds in the user's cache folder."""

import contextlib
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hptransfer.spec import digest


class Cache:
    """Lists of JSON values by key. A file or an entry that is damaged counts as missing."""

    def __init__(self) -> None:
        self._path = _folder() / "hptransfer" / "known.json"
        self._entries: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            entries = json.loads(self._path.read_text())
            self._entries = entries if isinstance(entries, dict) else {}

    @staticmethod
    def key(*parts: Any) -> str:
        """Digest of JSON-serialisable parts and the torch version."""
        return digest(json.dumps([torch.__version__, *parts], sort_keys=True))

    def get(self, key: str) -> list[Any] | None:
        entry = self._entries.get(key)
        if not isinstance(entry, dict) or not isinstance(entry.get("values"), list):
            return None
        values: list[Any] = entry["values"]
        return values if entry.get("digest") == _digest(key, values) else None

    def put(self, key: str, values: list[Any]) -> None:
        """Keep values. A folder that cannot be written makes no difference to this session."""
        if self.get(key) == values:
            return
        self._entries[key] = {"values": values, "digest": _digest(key, values)}
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._entries))
            temporary.replace(self._path)


def _folder() -> Path:
    """The user's cache folder. Where no home is known, a place that holds no file."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else Path.home() / ".cache"
    except RuntimeError:
        return Path(os.devnull)


def _digest(key: str, values: list[Any]) -> str:
    """An entry that stands under another key is not believed."""
    return digest(json.dumps([key, values], sort_keys=True))


@cache
def sources() -> str:
    """Digest of this package's code, which decides what is counted and timed."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()[:20]
