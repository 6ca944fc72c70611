"""docs/how-to/tails.md says of the committed tails what their documents say."""

import re
from pathlib import Path

from hptransfer.analysis.sentences import signed
from hptransfer.documents.tails import TailRun, Tails
from hptransfer.report.stored_tails import read_tails
from hptransfer.report.tails_tables import batches, examples, value
from hptransfer.suite.file import load_suite
from hptransfer.suite.resolved import Suite

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "reference"
PAGE = ROOT / "docs" / "how-to" / "tails.md"
MARKS = "<!-- results -->\n", "<!-- /results -->"
COLUMNS = (
    "suite", "model", "gradients of", "heavy", "light", "undecided", "no noise",
    "least index, where", "p_eff there", "pooled fit", "does the premise hold?",
)  # fmt: skip


def committed() -> list[Tails]:
    """The committed documents by the name of their suite."""
    made = []
    for path in sorted(RESULTS.glob("*/tails.json")):
        suite = Suite.of(load_suite(path.parent.name), {}, {})
        found = read_tails(path.parent, suite)
        assert found is not None
        made.append(found)
    return made


def premise(heavy: int, undecided: int, of: int) -> str:
    """Whether noise is heavy, in words."""
    if heavy:
        return f"in {heavy} of {of} places"
    return f"open in {undecided} of {of} places, else not" if undecided else "nowhere"


def row(suite: str, run: TailRun, batch: int) -> str:
    own = [each for each in run.layers if each.batch == batch]
    [counted] = [each for each in run.counts if each.batch == batch]
    known = [each for each in own if each.frobenius.hill_5.value is not None]
    least = min(known, key=lambda each: value(each.frobenius.hill_5))
    fits = [each.pooled_stable_fit for each in own if each.pooled_stable_fit is not None]
    cells = (
        f"`{suite}`",
        str(load_suite(suite).model["name"]),
        examples(batch),
        *(str(n) for n in (counted.heavy, counted.light, counted.undecided, counted.no_noise)),
        f"{value(least.frobenius.hill_5):.1f}, `{least.layer}` after {least.step} steps",
        "\N{EN DASH}" if least.p_eff is None else f"{least.p_eff:.1f}",
        f"{signed(min(fits), 1)} to {signed(max(fits), 1)}",
        premise(counted.heavy, counted.undecided, len(own)),
    )
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The table of the page."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for made in committed():
        for run in made.runs:
            lines += [row(made.suite, run, batch) for batch in batches(run)]
    return "\n".join(lines) + "\n"


def shown() -> tuple[str, str, str]:
    """The page before the table, the table, and the page behind it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    inside, _, after = rest.partition(MARKS[1])
    return before, inside, after


def test_the_table_is_what_the_committed_documents_say() -> None:
    assert shown()[1] == table(), "write it anew: python tests/test_tails_page.py"


def test_the_section_on_committed_runs_holds_no_number_that_was_typed_by_hand() -> None:
    before, _, after = shown()
    section = before.rpartition("\n## ")[2] + after
    assert re.findall(r".*\d.*", section) == []


def test_every_kind_of_model_was_measured_at_the_best_lr_or_says_so() -> None:
    runs = {str(load_suite(made.suite).model["name"]): made.runs for made in committed()}
    assert {"gpt", "vit", "cnn", "mlp"} == set(runs)
    assert all(run.curve_k and run.settings for own in runs.values() for run in own)


if __name__ == "__main__":
    before, _, after = shown()
    PAGE.write_text(MARKS[0].join((before, MARKS[1].join((table(), after)))), encoding="utf-8")
