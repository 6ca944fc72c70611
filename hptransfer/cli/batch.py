"""batch: compare batch sizes at equal tokens, or numbers of steps."""

import json
import math
from typing import TYPE_CHECKING

from hptransfer.cli.common import load, out, tell
from hptransfer.cli.options import RunOptions, SuiteName, takes
from hptransfer.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from hptransfer.analysis.batch import Tuned
    from hptransfer.analysis.parabola import Interval
    from hptransfer.documents.batches import Rule
    from hptransfer.report.section import Section
    from hptransfer.suite.resolved import Suite

BATCH_SUITE = "gpt_batch_quick"


@takes()
def batch(suite: SuiteName = BATCH_SUITE, *, options: RunOptions) -> None:
    """Compare batch sizes at equal tokens, or numbers of steps, each with its lr tuned.

    It runs what is missing, prints the table and writes the report. The table has the loss at
    every value, what the proxy's lr costs there unchanged and by a rule, and tokens to a loss.
    """
    from hptransfer.analysis.batch import is_judged
    from hptransfer.cli.training import say_where, trained, write_its_report
    from hptransfer.report.metrics import metrics_json
    from hptransfer.report.write import section

    table = load(suite, options)
    if not is_judged(table):
        fixed = "holds the steps fixed, so the tokens grow with the batch"
        raise InputError(
            f"batch: suite {table.name!r} "
            + (fixed if table.axis == "batch_size" else f"has the axis {table.axis!r}"),
            'it needs axis = "batch_size" with tokens = N, or axis = "steps"',
        )
    session = trained(table, options)
    if session is None:
        return
    own = section(session.suite, session.store.frame(), options.results)
    page = write_its_report(session, options)
    if options.as_json:
        tell(json.dumps(metrics_json([own])))
    else:
        _print(own)
    say_where(page, options)


def _print(own: "Section") -> None:
    """The table, and sentences on laws, critical batches, momentum and the suite's claim."""
    from hptransfer.analysis.batch_sentences import critical_sentence, law_sentence, momentum_policy
    from hptransfer.analysis.claims import claim_sentence
    from hptransfer.cli.text import shown
    from hptransfer.report.batch_tables import rests_on_one_seed

    suite = own.compared
    assert suite is not None, "the command refuses every other suite"
    out.print(_table(suite, own.tuned))
    out.print()
    largest = suite.axis_values[-1]
    starred = any(rests_on_one_seed(row, rule) for row in own.tuned for rule in row.regrets)
    lines = ["* by one seed alone, on a line between two of its runs"] if starred else []
    lines += [law_sentence(suite, law) for law in own.laws.values()]
    lines += [critical_sentence(*each, largest) for each in own.critical_batches.items()]
    lines += [momentum_policy(suite)] if suite.tokens else []
    lines += [told] if (told := claim_sentence(suite, own.claims)) else []
    lines += [own.control.sentence] if suite.negative_control else []
    for line in lines:
        out.print(shown(line), soft_wrap=True)


def _table(suite: "Suite", table: "list[Tuned]") -> "Table":
    """One row per optimizer and axis value; ± is half of a 95% interval."""
    from hptransfer.analysis.batch import rules
    from hptransfer.analysis.batch_sentences import unit
    from hptransfer.analysis.sentences import place
    from hptransfer.cli.tables import plain_table
    from hptransfer.cli.text import power
    from hptransfer.report.batch_tables import flags

    equal = suite.axis == "batch_size"
    relative = equal and suite.baseline is not None and bool(suite.budgets)
    exponents, axis = rules(suite), "B" if equal else "T"
    rows = [
        (
            row.optimizer,
            str(row.n),
            *([str(row.steps)] if equal else []),
            "-" if row.optimum is None else power(round(row.optimum.log2_lr, 2)),
            f"{row.loss:.3f}" if math.isfinite(row.loss) else "-",
            *([_value(row.difference)] if equal else []),
            *("-" if row.n == suite.proxy else _regret(row, rule) for rule in exponents),
            *([_reach(row)] if relative else []),
            flags(row),
        )
        for row in table
    ]
    columns = [
        "optimizer",
        *(["batch", "steps"] if equal else ["steps"]),
        *("lr*", "loss"),
        *(["above best"] if equal else []),
        *(f"lr {axis}^{r:g}" if r else "lr kept" for r in exponents.values()),
        *([f"{unit(suite)} to {suite.baseline}'s loss"] if relative else []),
        "",
    ]
    over = f"{suite.tokens:,} {unit(suite)} per run" if suite.tokens else "numbers of steps"
    title = (
        f"{suite.name}: {over}; lr tuned in every row, and what the lr of "
        f"{place(suite, suite.proxy)} costs there, nat"
    )
    return plain_table(title, columns, rows)


def _regret(row: "Tuned", rule: "Rule") -> str:
    """What a rule costs; a star where one seed alone tells, although more ran at the optimum."""
    from hptransfer.report.batch_tables import rests_on_one_seed

    value = _value(row.regrets[rule].cost) if rule in row.regrets else "-"
    return f"{value}*" if rests_on_one_seed(row, rule) else value


def _reach(row: "Tuned") -> str:
    """Tokens to the baseline's loss, with their interval or every seed alone."""
    from hptransfer.report.batch_tables import reach_text, share_text

    found = row.relative
    text, more = reach_text(found and found.of_means, row.tokens), share_text(row)
    return f"{text} ({more})" if more else text


def _value(interval: "Interval") -> str:
    """`0.012 ±0.004`, without the second where one seed tells, `-` where none does."""
    if not math.isfinite(interval.value):
        return "-"
    half = interval.high - interval.value
    text = f"{interval.value:.3f}"
    return f"{text} ±{half:.3f}" if math.isfinite(half) else text
