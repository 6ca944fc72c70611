"""What check found: a document, and JUnit XML for a CI system."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

from hptransfer.analysis.carried import Transfer
from hptransfer.analysis.claims import ClaimJudgement, Gate, claim_sentence, worst
from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import Control, negative_control, place, sentence
from hptransfer.documents import answers as shapes
from hptransfer.documents.values import Judgement, as_json
from hptransfer.errors import printable
from hptransfer.report.metrics import claim_shape, control_shape, transfer_shape

EXIT_CODES: dict[Judgement, Literal[0, 1, 3]] = {"held": 0, "refuted": 1, "undecided": 3}


@dataclass(frozen=True, eq=False)
class Checked:
    """A suite with its transfers, its judged expectations (at least one) and its gates.

    `full`: the suite with the labels that the command line left out, for the negative control.
    """

    suite: Question
    full: Question
    transfers: Sequence[Transfer]
    claims: Sequence[ClaimJudgement]
    gates: Sequence[Gate]

    @property
    def judgement(self) -> Judgement:
        """The worst of all expectations and gates. Raises ValueError without an expectation."""
        judgement = worst([each.judgement for each in (*self.claims, *self.gates)])
        if judgement is None:
            raise ValueError("a suite without expectations is not judged")
        return judgement

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        return EXIT_CODES[self.judgement]

    @property
    def control(self) -> Control:
        return negative_control(self.full, list(self.transfers))

    def transfer(self, label: str, n: int | None) -> Transfer | None:
        """The transfer of a label to an axis value, if it is there."""
        return next((t for t in self.transfers if (t.optimizer, t.n) == (label, n)), None)


def gate_sentence(suite: Question, gate: Gate) -> str:
    """`muon: regret at most 0.02 nats at width 256: held, the upper bound is 0.006`."""
    seen = f"the upper bound is {gate.upper_bound:.3g}"
    if gate.judgement == "undecided":
        seen = "there is no interval"
    return f"{_gate(suite, gate)}: {gate.judgement}, {seen}"


def _gate(suite: Question, gate: Gate) -> str:
    return (
        f"{gate.optimizer}: {gate.quantity} at most {gate.limit:g} {gate.unit}{_at(suite, gate.n)}"
    )


def _at(suite: Question, n: int | None) -> str:
    return "" if n is None else f" at {place(suite, n)}"


def check_json(checked: Checked) -> dict[str, Any]:
    """The document `Check` as JSON values."""
    suite = checked.suite
    document = shapes.Check(
        suite=suite.name,
        claim=suite.claim,
        judgement=checked.judgement,
        judgement_sentence=claim_sentence(suite, checked.claims),
        exit_code=checked.exit_code,
        axis=suite.axis,
        proxy=suite.proxy,
        claims=[claim_shape(each) for each in checked.claims],
        gates=[
            shapes.Gate(
                optimizer=each.optimizer,
                target=each.n,
                quantity=each.quantity,
                unit=each.unit,
                limit=each.limit,
                upper_bound=each.upper_bound,
                judgement=each.judgement,
            )
            for each in checked.gates
        ],
        negative_control=control_shape(checked.full, checked.control),
        transfers=[
            transfer_shape(suite, each)
            for each in checked.transfers
            if each.optimizer in suite.expect and each.n in suite.targets
        ],
    )
    return as_json(document)


def junit_xml(checked: Checked) -> str:
    """JUnit XML: one test case per expectation and gate; refuted is a failure, undecided an error.

    Source: the attributes that Jenkins, GitLab and GitHub's reporters read.
    """
    suite = checked.suite
    cases = [
        (
            f"{each.optimizer} {each.expected}{_at(suite, n)}",
            each.judgement,
            _grounds(checked, each),
        )
        for each in checked.claims
        for n in [each.widest.target if each.widest else None]
    ]
    cases += [
        (_gate(suite, each), each.judgement, gate_sentence(suite, each)) for each in checked.gates
    ]
    counts = {
        "tests": len(cases),
        "failures": sum(judgement == "refuted" for _, judgement, _ in cases),
        "errors": sum(judgement == "undecided" for _, judgement, _ in cases),
        "skipped": 0,
    }
    told = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", told)
    group = ElementTree.SubElement(root, "testsuite", {"name": _text(suite.name), **told})
    for name, judgement, grounds in cases:
        place = f"hptransfer.{suite.name}"
        case = ElementTree.SubElement(group, "testcase", classname=_text(place), name=_text(name))
        if judgement != "held":
            kind = "failure" if judgement == "refuted" else "error"
            message = {"type": str(judgement), "message": _text(grounds)}
            ElementTree.SubElement(case, kind, message).text = _text(grounds)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _grounds(checked: Checked, claim: ClaimJudgement) -> str:
    each = checked.transfer(claim.optimizer, claim.widest.target if claim.widest else None)
    return "no target" if each is None else sentence(checked.suite, each)


def _text(words: str) -> str:
    """Text that XML can hold: escapes stand for control characters."""
    return printable(words)
