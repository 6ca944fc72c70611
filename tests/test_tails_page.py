"""docs/how-to/tails.md says of the committed tails what their documents say."""

import re
from pathlib import Path

from hptransfer.analysis.sentences import signed
from hptransfer.analysis.tails import INFINITE_VARIANCE
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
    "suite", "model", "lr", "pairs", "gradients of", "heavy", "light", "undecided", "no noise",
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
        run.lr_source,
        f"{run.pairs:,}",
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


def test_what_the_page_says_of_heavy_places_is_so() -> None:
    """The prose below the table; write it anew where this fails."""
    places = {
        (str(load_suite(made.suite).model["name"]), each.batch > 1, each.layer, each.step)
        for made in committed()
        for run in made.runs
        for each in run.layers
        if each.frobenius.verdict == "heavy"
    }
    after_warm_up = {("gpt", False, f"blocks.0.{x}", 10) for x in "qkv"}
    after_warm_up.add(("gpt", False, "embedding", 10))
    later = {("gpt", True, "embedding", step) for step in (50, 100)}
    assert places == after_warm_up | later


def test_what_the_page_says_of_the_pooled_fit_on_images_is_so() -> None:
    fits = {
        str(load_suite(made.suite).model["name"]): [
            fit
            for run in made.runs
            for each in run.layers
            if (fit := each.pooled_stable_fit) is not None
        ]
        for made in committed()
    }
    del fits["gpt"]
    assert all(any(0 < fit < INFINITE_VARIANCE for fit in own) for own in fits.values())
    every = [fit for own in fits.values() for fit in own]
    assert min(every) < 0
    assert max(every) > INFINITE_VARIANCE


def test_gpt_vit_cnn_and_mlp_were_measured() -> None:
    models = {str(load_suite(made.suite).model["name"]) for made in committed()}
    assert models == {"gpt", "vit", "cnn", "mlp"}


if __name__ == "__main__":
    before, _, after = shown()
    PAGE.write_text(MARKS[0].join((before, MARKS[1].join((table(), after)))), encoding="utf-8")
