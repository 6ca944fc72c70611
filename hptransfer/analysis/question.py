"""What the analysis asks of a suite, or of a sweep that was made elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from hptransfer.suite.claim import Expectation
from hptransfer.suite.grid import Grid
from hptransfer.suite.tables import Thresholds, Tuned


class Question(Protocol):
    """Does the lr of each label hold from the proxy to the other axis values?

    `templates`, `optimizers`: one entry per label, in the order of tables and in that of claims.
    `tuned`: label -> hyperparameter -> range, of those that the proxy tuned beside the lr.
    `ngrams`: n -> held-out loss of an n-gram table of the text, nats. `records_schema`: that of the
    records which hold the runs.
    """

    @property
    def kind(self) -> str:
        """`suite` or `sweep`, as a sentence calls it."""
        ...

    @property
    def unit(self) -> str:
        """What follows a loss in a sentence: `nat`."""
        ...

    @property
    def reads_between(self) -> bool:
        """Whether a loss at an lr that nobody ran may be read off the runs beside it."""
        ...

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

    def grid(self, label: str) -> Grid:
        """The grid on which the learning rates of a label were tried."""
        ...

    def start_grid(self, label: str) -> tuple[float, float]:
        """First and last log2 lr with which a search begins, octaves."""
        ...

    def lr_text(self, log2_lr: float) -> str:
        """A learning rate in words: `2^-4.125`."""
        ...

    def lower_lr(self, label: str) -> str:
        """Where to search if every run diverged, as the end of a sentence."""
        ...

    def clip_lr(self, label: str, log2_lr: float) -> float:
        """The log2 lr that is carried where this one is the best, octaves."""
        ...
