"""How runs ended: those that gave a result, and how many ended in one way."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a search needs no tables
    import pandas as pd

__all__ = ["count", "finished"]


def finished(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of the runs that gave a result: done or diverged. A failed run gave none."""
    return rows[rows["status"] != "failed"]


def count(rows: "pd.DataFrame", status: str) -> int:
    """Number of rows with this status."""
    return int((rows["status"] == status).sum())
