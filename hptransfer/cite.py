"""BibTeX entries of the methods that a suite uses."""

import re
from pathlib import Path

from hptransfer import registry
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.parts import describe

_REFERENCES = Path(__file__).parent / "references.bib"


def bibtex(suite: SuiteTable) -> str:
    """Entries of references.bib that the docstrings of the suite's parts name, and Optuna's.

    A docstring names an entry by its arXiv id, or by the author and year of its key. Raises
    InputError for an unknown part.
    """
    parts = [describe(label, table) for label, table in suite.optimizers.items()]
    parts.append(registry.describe("model", suite.model["name"]))
    docs = " ".join([part.doc for part in parts] + ["Akiba 2019"])
    entries = re.split(r"\n(?=@)", _REFERENCES.read_text(encoding="utf-8"))
    return "\n\n".join(entry.strip() for entry in entries if _cites(docs, entry))


def _cites(docs: str, entry: str) -> bool:
    """Whether the docstrings name the entry."""
    key = re.match(r"\s*@\w+\{([a-z]+)(\d{4})", entry)
    assert key is not None
    numbers = re.findall(r"\b\d{4}\.\d{5}\b", entry)
    author = re.search(rf"\b{key[1]}\b[^.;]{{0,60}}?(et al\. )?{key[2]}", docs, re.IGNORECASE)
    return any(number in docs for number in numbers) or author is not None
