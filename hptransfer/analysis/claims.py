"""The expectations of a suite against its verdicts: held, refuted or undecided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hptransfer.analysis.carried import Transfer
from hptransfer.analysis.parabola import Interval
from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import place, span
from hptransfer.documents.metrics import TargetJudgement
from hptransfer.documents.values import Judgement
from hptransfer.suite.claim import Expectation

WORST_LAST: tuple[Judgement, ...] = ("held", "undecided", "refuted")

REFUTES: dict[Expectation, tuple[str, ...]] = {
    "transfers": ("drifts", "diverged"),
    "drifts": ("transfers", "insensitive"),
}


@dataclass(frozen=True)
class ClaimJudgement:
    """An expectation of the suite: that of its widest target, which decides, and the others.

    `widest`: None where the suite has no target. `nearer`: the other targets, rising.
    """

    optimizer: str
    expected: Expectation
    widest: TargetJudgement | None
    nearer: tuple[TargetJudgement, ...] = ()

    @property
    def judgement(self) -> Judgement:
        return "undecided" if self.widest is None else self.widest.judgement


def judge(expected: Expectation, verdict: str) -> Judgement:
    """`held` by the verdict of that name, `refuted` by those of REFUTES, else `undecided`."""
    if verdict == expected:
        return "held"
    return "refuted" if verdict in REFUTES[expected] else "undecided"


def judgements(suite: Question, transfers: Sequence[Transfer]) -> list[ClaimJudgement]:
    """One per expectation, in the order of the suite's labels.

    Axis values to which a command carried the lr although they are no targets do not count.
    """
    made = []
    for label in suite.optimizers:
        if label not in suite.expect:
            continue
        expected = suite.expect[label]
        at = {
            each.n: TargetJudgement(each.n, each.verdict, judge(expected, each.verdict))
            for each in transfers
            if each.optimizer == label and each.n in suite.targets
        }
        *nearer, widest = [at[n] for n in sorted(at)] or [None]
        made.append(ClaimJudgement(label, expected, widest, tuple(filter(None, nearer))))
    return made


def worst(parts: Sequence[Judgement]) -> Judgement | None:
    """`refuted` before `undecided` before `held`; None for nothing to judge."""
    return max(parts, key=WORST_LAST.index, default=None)


def suite_judgement(claims: Sequence[ClaimJudgement]) -> Judgement | None:
    """The worst of the expectations; None for a suite without any."""
    return worst([claim.judgement for claim in claims])


@dataclass(frozen=True)
class Gate:
    """A limit on one optimizer that is expected to transfer, at its widest target `n`.

    `limit`, `upper_bound`: nats of a regret, octaves of a drift; NaN without an interval.
    """

    optimizer: str
    n: int | None
    quantity: Literal["regret", "drift"]
    limit: float
    upper_bound: float

    @property
    def unit(self) -> Literal["nats", "octaves"]:
        return "nats" if self.quantity == "regret" else "octaves"

    @property
    def judgement(self) -> Judgement:
        """`held` where the upper bound is at most the limit, `undecided` where there is none."""
        if not math.isfinite(self.upper_bound):
            return "undecided"
        return "held" if self.upper_bound <= self.limit else "refuted"


def gates(
    claims: Sequence[ClaimJudgement],
    transfers: Sequence[Transfer],
    *,
    max_regret: float | None,
    max_drift: float | None,
) -> list[Gate]:
    """One per limit that is given and optimizer that is expected to transfer.

    The upper bound of a regret is that of its interval. A drift may go either way: there it is the
    larger absolute value of the two bounds.
    """
    at = {(each.optimizer, each.n): each for each in transfers}
    made = []
    for claim in claims:
        if claim.expected != "transfers":
            continue
        n = claim.widest.target if claim.widest else None
        each = at.get((claim.optimizer, n)) if n is not None else None
        if max_regret is not None:
            upper = each.regret.high if each else math.nan
            made.append(Gate(claim.optimizer, n, "regret", max_regret, upper))
        if max_drift is not None:
            drift = each.drift if each else Interval()
            upper = max(abs(drift.low), abs(drift.high))
            made.append(Gate(claim.optimizer, n, "drift", max_drift, upper))
    return made


def claim_sentence(suite: Question, claims: Sequence[ClaimJudgement]) -> str:
    """The judgement of the suite in one sentence, its cause first; empty without expectations."""
    judgement = suite_judgement(claims)
    if judgement is None:
        return ""
    ordered = sorted(claims, key=lambda claim: -WORST_LAST.index(claim.judgement))
    told = [_told(claim) for claim in ordered]
    across = span(suite, max(suite.targets)) if suite.targets else place(suite, suite.proxy)
    return f"Claim {judgement} from {across}: {'; '.join(told)}."


def _told(claim: ClaimJudgement) -> str:
    """`adamw drifts, as expected`, or what came instead."""
    verdict = "incomplete" if claim.widest is None else claim.widest.verdict
    if claim.judgement == "held":
        return f"{claim.optimizer} {verdict}, as expected"
    expected = {"drifts": "drift", "transfers": "transfer"}[claim.expected]
    return f"{claim.optimizer} was expected to {expected} and came out as {verdict}"
