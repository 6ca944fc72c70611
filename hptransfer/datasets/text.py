"""Byte-level text from a Python package or from a file of yours."""

import gzip
import hashlib
import html
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hptransfer.datasets import Tokens, fingerprint, package_folder
from hptransfer.errors import InputError

REVISION = {"python_source": 1, "english": 1, "file": 1}

SYMPY_SHA256 = {  # of all files of sympy 1.14.0, joined by newlines; the key is `tests`
    True: "7131b3237dde1196d927eb51572b49b5e0875f3ed7acc08b8147a2f8e7b75940",
    False: "b14978d829edcf646d3af61a8fff9e48a13569e7e64a651f3878774ef6a532ed",
}
HELDOUT = 0.05  # share of the bytes to hold out
MIN_FILE = 20_480  # bytes, so that at least 1 kB is held out

_INLINE = re.compile(r"</?(?:a|b|code|em|i|strong)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")
_SPACE = re.compile(r"\s+")


def python_source(*, tests: bool = False) -> Tokens:
    """Python source code of sympy, 16.6 MB of bytes (26.2 MB with its tests).

    Files in the order of their paths, joined by newlines; the hash of its path decides whether a
    file is held out. uint8 (n_tokens,), vocab 256.
    Raises InputError if sympy is missing. Warns if its files are not those of sympy 1.14.0.
    Source: sympy (BSD-3), a dependency of torch.
    """
    folder = package_folder("sympy", "python_source", "sympy==1.14.0")
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    files = {
        name: paths[name].read_bytes()
        for name in sorted(paths)
        if tests or "tests" not in name.split("/")[:-1]
    }
    release = version("sympy")
    sha256 = hashlib.sha256(b"\n".join(files.values())).hexdigest()
    if sha256 != SYMPY_SHA256[tests]:
        warnings.warn(
            f"python_source: the files of sympy {release} have sha256 {sha256[:16]}, expected is "
            f"{SYMPY_SHA256[tests][:16]} (sympy 1.14.0); losses are not comparable with published "
            "ones",
            stacklevel=2,
        )
    train, heldout = _split(files)
    return _tokens("python_source", train, heldout, f"sympy {release}, {len(files)} files")


def english() -> Tokens:
    """English technical prose, 31 MB of bytes: the documentation inside botocore (an extra).

    Without HTML and duplicates; whole services are held out. uint8 (n_tokens,), vocab 256. The
    first call takes seconds; later calls read a cache under $XDG_CACHE_HOME/hptransfer. Any
    release of botocore will do: `sha256` tells them apart. Raises InputError if it is missing.
    Source: botocore (Apache-2.0), documentation fields of its service models.
    """
    folder = package_folder("botocore", "english", "hptransfer[english]")
    release = version("botocore")
    cache = _cache_folder() / f"english-{release}-{REVISION['english']}.npz"
    parts = _read_cache(cache)
    if parts is None:
        parts = _split(_prose(folder / "data"))
        _write_cache(cache, *parts)
    return _tokens("english", *parts, f"botocore {release}")


def file(*, path: str = "") -> Tokens:
    """Any file of yours as bytes: the last 5% are held out.

    uint8 (n_tokens,), vocab 256.
    Raises InputError if the file is missing, not readable or smaller than 20 kB.
    """
    if not path:
        raise InputError(
            "data.path: missing", 'for instance data = { name = "file", path = "book.txt" }'
        )
    place = Path(os.path.expanduser(path))
    try:
        data = place.read_bytes()
    except IsADirectoryError:
        raise InputError(
            f"data.path: got {path!r}, a folder; needs a file", "join its files into one"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) else None
        raise InputError(
            f"data.path: got {path!r}, {(why or str(error)).lower()}",
            f"a relative path starts at {Path.cwd()}",
        ) from None
    if len(data) < MIN_FILE:
        raise InputError(
            f"data.path: got {path!r} with {len(data):,} bytes, needs at least {MIN_FILE:,}",
            "a model learns nothing from so little text: join several files",
        )
    cut = len(data) - int(len(data) * HELDOUT)
    return _tokens("file", data[:cut], data[cut:], place.name)


def _tokens(name: str, train: bytes, heldout: bytes, note: str) -> Tokens:
    # A copy: an array over bytes is read-only, and torch warns about read-only arrays.
    arrays = np.frombuffer(train, np.uint8).copy(), np.frombuffer(heldout, np.uint8).copy()
    return Tokens(name, *arrays, vocab=256, sha256=fingerprint(*arrays), note=note)


def _split(documents: dict[str, bytes]) -> tuple[bytes, bytes]:
    """Documents joined by newlines, as train and held-out bytes.

    The hash of its name decides where a document goes, so a new document moves no other.
    """
    heldout = {
        name
        for name in documents
        if int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < HELDOUT * 2**64
    }
    train = b"\n".join(text for name, text in documents.items() if name not in heldout)
    return train, b"\n".join(documents[name] for name in documents if name in heldout)


def _prose(folder: Path) -> dict[str, bytes]:
    """Service -> its documentation, one paragraph per line; each text once, at its first place."""
    models = {
        path.relative_to(folder).as_posix(): path for path in folder.glob("*/*/service-2.json*")
    }
    seen: set[str] = set()
    services: dict[str, list[str]] = {}
    for name in sorted(models):
        raw = models[name].read_bytes()
        model = json.loads(gzip.decompress(raw) if name.endswith(".gz") else raw)
        lines = services.setdefault(name.split("/")[0], [])
        for text in _plain(_documentation(model)):
            if text and text not in seen:
                seen.add(text)
                lines.append(text)
    return {name: "\n".join(lines).encode() for name, lines in services.items()}


def _documentation(model: Any) -> Iterator[str]:
    stack = [model]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if isinstance(node.get("documentation"), str):
                yield node["documentation"]
            stack.extend(reversed(node.values()))
        elif isinstance(node, list):
            stack.extend(reversed(node))


def _plain(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        bare = _TAG.sub(" ", _INLINE.sub("", text))
        yield _SPACE.sub(" ", html.unescape(bare)).strip()


def _cache_folder() -> Path:
    """The user's cache folder. Where no home is known, a place that holds no file."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(named) if named else Path.home() / ".cache") / "hptransfer"
    except RuntimeError:
        return Path(os.devnull)


def _read_cache(path: Path) -> tuple[bytes, bytes] | None:
    try:
        with path.open("rb") as stream, np.load(stream) as stored:
            return stored["train"].tobytes(), stored["heldout"].tobytes()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # absent or damaged: the caller extracts the text again


def _write_cache(path: Path, train: bytes, heldout: bytes) -> None:
    arrays: dict[str, NDArray[np.uint8]] = {
        "train": np.frombuffer(train, np.uint8),
        "heldout": np.frombuffer(heldout, np.uint8),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    except OSError:
        return  # without a cache the next call only takes longer
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
