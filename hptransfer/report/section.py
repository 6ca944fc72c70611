"""A suite and its records as the report reads them: what is there, missing, and concluded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from hptransfer.analysis import (
    batch,
    carried,
    claims,
    differences,
    landscape,
    points,
    sentences,
    transfer,
)
from hptransfer.analysis.frame import belonging, select
from hptransfer.analysis.question import Question
from hptransfer.analysis.statuses import finished
from hptransfer.documents.tails import Tails
from hptransfer.suite.resolved import Suite

OLDER = "an earlier version made them, under the rule of 0.1"


@dataclass(frozen=True, eq=False)
class Section:
    """A resolved suite, its records (`store.frame()`), and what the caller knows besides.

    Or a sweep that was made elsewhere, whose `frame` holds its rows; what only records tell is
    empty there. `taken`: which column was taken for what, and the rules by which its cells were
    read. `findings`: what weakens the sweep.

    `n_expected`: runs of the finished suite, None where that is not known. `missing`: a name for
    each run that is not there. `uncounted`: why the missing runs could not be counted, if so.
    `commands`: lines that reproduce the section. `tails`: of the gradient noise, where they were
    measured. `tails_fault`: why they could not be read, if so.
    """

    suite: Question
    frame: pd.DataFrame
    n_expected: int | None = None
    missing: Sequence[str] = ()
    commands: Sequence[str] = ()
    uncounted: str = ""
    tails: Tails | None = None
    tails_fault: str = ""
    taken: Sequence[tuple[str, str]] = ()
    findings: Sequence[str] = ()

    @property
    def recorded(self) -> Suite | None:
        """The suite that made the runs; None for a sweep that was made elsewhere."""
        return self.suite if isinstance(self.suite, Suite) else None

    @property
    def compared(self) -> Suite | None:
        """The suite, where it compares batch sizes at equal tokens or numbers of steps."""
        suite = self.recorded
        return suite if suite is not None and batch.is_judged(suite) else None

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The records that belong to the suite, as `frame.select` gives them."""
        return self.frame if self.recorded is None else select(self.recorded, self.frame)

    @cached_property
    def all_rows(self) -> pd.DataFrame:
        """`rows` and those on the suite's further budgets."""
        return self.frame if self.recorded is None else belonging(self.recorded, self.frame)

    @cached_property
    def n_finished(self) -> int:
        """Finished runs of the suite; a run that belongs to two labels counts once."""
        rows = finished(self.all_rows)
        return len(rows) if self.recorded is None else int(rows["key"].nunique())

    @cached_property
    def transfers(self) -> list[carried.Transfer]:
        return transfer.transfers(self.suite, self.rows)

    @cached_property
    def tuned(self) -> list[batch.Tuned]:
        """The comparison of batch sizes or of steps; [] for a suite that has none."""
        return batch.tuned(self.compared, self.frame) if self.compared else []

    @cached_property
    def critical_batches(self) -> dict[str, batch.Criticals]:
        """Label -> its critical batch; {} for a suite without further budgets."""
        suite = self.recorded
        return batch.critical_batches(self.tuned) if suite and suite.budgets else {}

    @cached_property
    def laws(self) -> dict[str, landscape.Law]:
        """Label -> the law of its best lr, for a suite with `tuned`."""
        return landscape.laws(self.suite, self.rows) if self.compared else {}

    @cached_property
    def landscapes(self) -> list[landscape.Landscape]:
        return landscape.landscapes(self.suite, self.rows)

    @cached_property
    def exponents(self) -> list[landscape.Exponent]:
        return landscape.exponents(self.suite, self.rows)

    @cached_property
    def points(self) -> list[points.Spread]:
        return points.spreads(self.suite, self.rows)

    @cached_property
    def audits(self) -> list[landscape.Audit]:
        return landscape.audits(self.suite, self.rows) if self.recorded else []

    @cached_property
    def differences(self) -> list[differences.Difference]:
        return differences.differences(self.suite, self.rows)

    @cached_property
    def claims(self) -> list[claims.ClaimJudgement]:
        return claims.judgements(self.suite, self.transfers)

    @cached_property
    def control(self) -> sentences.Control:
        return sentences.negative_control(self.suite, self.transfers)


def newest_first(sections: Sequence[Section]) -> list[Section]:
    """Sections by the time at which their last run finished."""

    def last(section: Section) -> float:
        known = section.recorded is not None and len(section.frame)
        return float(section.frame["finished"].max()) if known else 0.0

    return sorted(sections, key=last, reverse=True)
