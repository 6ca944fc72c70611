"""What a session has to know of other processes on its suite: runs taken, runs over, news."""

import contextlib
from collections.abc import Generator, Iterable

from hptransfer.records.claims import Claims
from hptransfer.records.store import Store
from hptransfer.spec import RunSpec, Unit


class Sharing:
    """The runs of a suite, divided between this session and those of other processes."""

    def __init__(self, store: Store) -> None:
        self.claims = Claims(store.folder)
        self._store = store
        self._failed_before: dict[str, float] = {}
        self._seen: tuple[int, dict[str, str]] | None = None

    @contextlib.contextmanager
    def begin(self) -> Generator[None]:
        """Share until the block ends. Raises InputError where the folder cannot be written."""
        with self.claims.announce():
            if not self.claims.others():
                self._store.drop_torn_snapshots()
            self._failed_before = {key: when for key, (when, _) in self._failures().items()}
            self._seen = None
            yield

    def look(self) -> dict[str, str]:
        """The runs that other processes train: key -> process. What comes after is news."""
        self._seen = self._store.from_others(), self.claims.taken()
        return self._seen[1]

    def news(self) -> bool:
        """Whether other processes have recorded, claimed or left a run since the last look."""
        return self._seen != (self._store.from_others(), self.claims.taken())

    def over(self) -> set[str]:
        """Runs that are done, or that failed since this session began: in whatever process."""
        rows = self._store.frame()
        failures = self._failures().items()
        failed = {key for key, (when, _) in failures if when != self._failed_before.get(key)}
        return failed | set(rows["key"][rows["status"] != "failed"])

    def error(self, key: str) -> str:
        """The last line of what the record of a failed run says."""
        _, text = self._failures()[key]
        return text.strip().split("\n")[-1]

    def _failures(self) -> dict[str, tuple[float, str]]:
        """By run that failed and never finished: when it did, and the text of the error."""
        rows = self._store.frame()
        rows = rows[rows["status"] == "failed"]
        values = zip(rows["finished"], rows["error"], strict=True)
        return dict(zip(rows["key"], values, strict=True))

    def claim(self, unit: Unit) -> Unit | None:
        """The runs of a unit that this process is to train; None where others have them all."""
        won = self.claims.claim(unit.keys)
        if self.news():  # whoever recorded a run after the look has let go of it
            over = self.over() & won
            self.claims.release(over)
            won -= over
        if len(won) < unit.lanes:
            self._seen = None  # the plan is no longer right
        runs = tuple(run for run in unit.runs if run.key in won)
        return Unit(runs) if runs else None

    def release(self, runs: Iterable[RunSpec], *, recorded: bool = False) -> None:
        """Let go of runs, once their records are on disk or their unit has ended."""
        self.claims.release((run.key for run in runs), recorded=recorded)
