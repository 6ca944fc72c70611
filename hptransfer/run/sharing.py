"""What a session knows of other processes on its suite: their runs, finished runs, news."""

import contextlib
from collections.abc import Generator, Iterable

from hptransfer.analysis.statuses import finished
from hptransfer.records.claims import Claims
from hptransfer.records.store import Store
from hptransfer.spec import RunSpec, Unit


class Sharing:
    """The runs of a suite, divided among this session and the sessions of other processes."""

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
        """The runs that other processes train: key -> process. Later changes are news."""
        self._seen = self._store.from_others(), self.claims.taken()
        return self._seen[1]

    def news(self) -> bool:
        """Whether other processes have recorded, claimed or left a run since the last look."""
        return self._seen != (self._store.from_others(), self.claims.taken())

    def over(self) -> set[str]:
        """Keys of runs that finished, or that failed in any process since this session began."""
        rows = self._store.frame()
        failures = self._failures().items()
        failed = {key for key, (when, _) in failures if when != self._failed_before.get(key)}
        return failed | set(finished(rows)["key"])

    def error(self, key: str) -> str:
        """The last line of the error in the record of a failed run."""
        _, text = self._failures()[key]
        return text.strip().split("\n")[-1]

    def _failures(self) -> dict[str, tuple[float, str]]:
        """Runs that failed and never finished: key -> time of the failure, text of the error."""
        rows = self._store.frame()
        rows = rows[rows["status"] == "failed"]
        values = zip(rows["finished"], rows["error"], strict=True)
        return dict(zip(rows["key"], values, strict=True))

    def claim(self, unit: Unit) -> Unit | None:
        """The runs of a unit that this process trains; None where others have them all."""
        won = self.claims.claim(unit.keys)
        if self.news():  # a process that recorded a run after the look has released it
            over = self.over() & won
            self.claims.release(over)
            won -= over
        if len(won) < unit.lanes:
            self._seen = None  # the plan names runs that others have: make it anew
        runs = tuple(run for run in unit.runs if run.key in won)
        return Unit(runs) if runs else None

    def release(self, runs: Iterable[RunSpec], *, recorded: bool = False) -> None:
        """Release runs, once their records are on disk or their unit has ended."""
        self.claims.release((run.key for run in runs), recorded=recorded)
