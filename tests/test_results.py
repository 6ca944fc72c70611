"""docs/results.md is what docs/results.md.j2 and the committed metrics make."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

from hptransfer.analysis.sentences import signed
from hptransfer.suite.tables import Thresholds

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "reference"
PAGE = ROOT / "docs" / "results.md"
SOURCE = (ROOT / "docs" / "results.md.j2").read_text(encoding="utf-8")
NAMES = ("version 0.1", "MNIST-5k", "H100", "bfloat16")  # all that may hold digits in the source


def told(interval: dict[str, float | None], unit: str, digits: int) -> str:
    """`0.048 nat (0.023 to 0.073)`, or a dash."""
    if interval["value"] is None:
        return "\N{EN DASH}"
    text = f"{signed(interval['value'], digits)}{unit}"
    if interval["low"] is None or interval["high"] is None:
        return text
    return f"{text} ({signed(interval['low'], digits)} to {signed(interval['high'], digits)})"


def nats(loss: float | None) -> str:
    return "\N{EN DASH}" if loss is None else f"{signed(loss, 2)} nat"


def at_target(transfer: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """What the page says of one optimizer at the largest target."""
    exponents = {each["optimizer"]: each["exponent"] for each in metrics["exponents"]}
    best, drift = transfer["optimum_at_target"], transfer["drift"]["value"]
    kept = transfer["share_kept"]
    return {
        **transfer,
        "regret": told(transfer["regret"], " nat", 3),
        "high": transfer["regret"]["high"],
        "equal": transfer["regret"]["low"] == transfer["regret"]["high"] == 0,
        "drift": told(transfer["drift"], " octaves", 1),
        "moved": drift,
        "kept": None if kept is None else f"{100 * kept:.0f}%",
        "carried_loss": nats(transfer["carried_loss"]),
        "loss": nats(transfer["best_loss"]),
        "censored": best["censored"] if best else None,
        "exponent": told(exponents.get(transfer["optimizer"], transfer["drift"]), "", 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| optimizer | verdict | regret | drift | loss at the best lr | seeds |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        cells = (
            row["optimizer"], row["verdict"] + (", on the edge" if row["on_edge"] else ""),
            row["regret"], row["drift"], row["loss"], str(row["n_seeds"]),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def suite(name: str, schema: int) -> dict[str, Any]:
    """What the page says of a suite. Raises ValueError where newer records are there."""
    folder = RESULTS / name
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["suites"]
    newest = max(each["records_schema"] for each in metrics)
    if newest != schema:
        raise ValueError(f"{name}: docs/results.md.j2 speaks of schema {schema}, {newest} is there")
    [own] = [each for each in metrics if each["records_schema"] == schema]
    manifest = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
    assert manifest["schema"] == schema, name
    last = max(own["targets"])
    rows = [at_target(each, own) for each in own["transfers"] if each["target"] == last]
    losses = [row["best_loss"] for row in rows if row["best_loss"] is not None]
    trigram = (manifest.get("ngrams") or {}).get("3")
    return {
        **{row["optimizer"]: row for row in rows},
        "name": name,
        "steps": manifest["steps"],
        "model": manifest["model"],
        "proxy": own["proxy"],
        "target": last,
        "found": f"{own['runs']['found']:,}",
        "judgement": own["judgement"],
        "control": own["negative_control"]["shown"],
        "negative_control": own["negative_control"]["optimizer"],
        "limit": own["thresholds"]["limit"],
        "tolerance": own["thresholds"]["drift"],
        "optimizers": len(rows),
        "verdicts": "".join(row["verdict"] for row in rows if row["verdict"] == "transfers"),
        "best_loss": min(losses),
        "best_loss_told": nats(min(losses)),
        "trigram": trigram,
        "trigram_told": nats(trigram),
        "table": table(rows),
    }


def so(holds: bool) -> str:
    """Nothing. Raises ValueError where the words that follow are not so."""
    if not holds:
        raise ValueError("docs/results.md.j2: what it says is not so any more: write it anew")
    return ""


def page(source: str = SOURCE) -> str:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    made: str = environment.from_string(source).render(suite=suite, so=so, today=Thresholds())
    return "\n\n".join(map(filled, re.split(r"\n{2,}", made.strip()))) + "\n"


def filled(paragraph: str) -> str:
    """A paragraph in lines of equal length; headings and tables as they are."""
    if paragraph.startswith(("#", "|")):
        return paragraph
    return textwrap.fill(paragraph, 116, break_long_words=False, break_on_hyphens=False)


def prose(source: str) -> str:
    return re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", source, flags=re.DOTALL)


def test_the_page_is_what_its_source_and_the_committed_metrics_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python tests/test_results.py"


def test_no_number_of_the_page_was_typed_by_hand() -> None:
    text = prose(SOURCE)
    for name in NAMES:
        text = text.replace(name, "")
    assert re.findall(r".*\d.*", text) == []


def test_every_suite_with_committed_results_has_a_section_of_three_sentences() -> None:
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    names = [section.partition("\n")[0] for section in sections]
    assert sorted(names) == sorted(path.parent.name for path in RESULTS.glob("*/metrics.json"))
    for section in sections:
        words = section.partition("\n")[2].partition("| optimizer")[0].strip()
        assert len(re.findall(r"\.(?=\s|$)", words)) == 3, words


def test_words_that_the_results_do_not_bear_out_are_refused() -> None:
    with pytest.raises(ValueError, match="write it anew"):
        page('{% set s = suite("quickstart", 2) %}{{ so(s.adamw.verdict == "transfers") }}')
    with pytest.raises(ValueError, match=r"quickstart: .* schema 1, 2 is there"):
        page('{% set s = suite("quickstart", 1) %}')


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
