"""What the analysis asks of a suite, or of a sweep that was made elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from hptransfer.suite.claim import Expectation
from hptransfer.suite.tables import Thresholds, Tuned


class Question(Protocol):
    """Does the lr of each label hold from the proxy to the other axis values?

    `templates`, `optimizers`: one entry per label, in the order of tables and in that of claims.
    `tuned`: label -> hyperparameter -> range, of those that the proxy tuned beside the lr.
    `ngrams`: n -> held-out loss of an n-gram table of the text, nats. `records_schema`: that of the
    records which hold the runs.
    """

    @property
    def name(self) -> str: ...
    @property
    def claim(self) -> str: ...
    @property
    def axis(self) -> str: ...
    @property
    def proxy(self) -> int: ...
    @property
    def targets(self) -> Sequence[int]: ...
    @property
    def axis_values(self) -> Sequence[int]: ...
    @property
    def templates(self) -> Mapping[str, object]: ...
    @property
    def optimizers(self) -> Mapping[str, object]: ...
    @property
    def tuned(self) -> Mapping[str, Mapping[str, Tuned]]: ...
    @property
    def thresholds(self) -> Thresholds: ...
    @property
    def looks(self) -> Sequence[int]: ...
    @property
    def expect(self) -> Mapping[str, Expectation]: ...
    @property
    def negative_control(self) -> str | None: ...
    @property
    def ngrams(self) -> Mapping[int, float]: ...
    @property
    def records_schema(self) -> int: ...

    def looks_at(self, n: int) -> Sequence[int]:
        """Numbers of seeds at which the verdict at an axis value is looked at, rising."""
        ...

    def start_grid(self, label: str) -> tuple[float, float]:
        """First and last log2 lr with which a search begins, octaves."""
        ...

    def clip_lr(self, label: str, log2_lr: float) -> float:
        """The log2 lr that is carried where this one is the best, octaves."""
        ...
