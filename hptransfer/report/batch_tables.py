"""The tables of batch sizes, or of steps: tuned losses, carried lrs, tokens to a loss."""

import math
from dataclasses import replace

from hptransfer.analysis.batch import Criticals, Tuned, rules
from hptransfer.analysis.batch_sentences import (
    batch_text,
    few_steps,
    law_name,
    momentum_policy,
    unit,
)
from hptransfer.analysis.landscape import Law
from hptransfer.analysis.reach import BRACKETED, OVERHEAD, Reach
from hptransfer.analysis.sentences import axis_name
from hptransfer.documents.batches import Rule
from hptransfer.report.cells import (
    DASH,
    Cell,
    Table,
    between,
    count,
    lr_star,
    nat,
    number,
    scaled,
    word,
)
from hptransfer.suite.budget import SHORT
from hptransfer.suite.resolved import Suite

NAN = float("nan")


def rule_names(suite: Suite) -> dict[Rule, str]:
    """Rule -> its factor on the lr, as the head of a column has it."""
    n = "T/T0" if suite.axis == "steps" else "B/B0"
    names = {exponent: f"lr × ({n})^{exponent:g}" for exponent in rules(suite).values()}
    return {rule: names[r] if r else "lr unchanged" for rule, r in rules(suite).items()}


def reach_text(reach: Reach | None, whole: int) -> str:
    """Tokens to a loss as a part of all N: `0.62 N`, `> N`, `< 0.25 N`, a dash if not known."""
    if reach is None:
        return DASH
    sign = {"at": "", "above": "> ", "below": "< "}[reach.side]
    share = reach.tokens / whole
    return f"{sign}N" if share == 1 else f"{sign}{share:.2f} N"


def share_text(row: Tuned) -> str:
    """The interval of the tokens to a loss, or every seed alone where there is none.

    A bound outside the budgets that ran is shown as outside, and not by its number.
    """
    if row.relative is None:
        return ""
    share, least = row.relative.share, min(row.budgets) / row.tokens
    if math.isfinite(share.low) and math.isfinite(share.high):
        bounds = [_bound(each, least) for each in (share.low, share.high)]
        return "" if share.low == share.high else " to ".join(bounds)
    alone = [reach_text(each, row.tokens) for each in row.relative.by_seed.values()]
    return f"by seed {', '.join(alone)}" if len(alone) > 1 else "one seed"


def _bound(share: float, least: float) -> str:
    if share > 1:
        return "> N"
    return f"< {least:.2f} N" if share < least else f"{share:.2f} N"


def _reach(row: Tuned) -> Cell:
    if row.relative is None:
        return number(NAN, DASH)
    found = row.relative
    return number(found.share.value, reach_text(found.of_means, row.tokens), share_text(row))


def rests_on_one_seed(row: Tuned, rule: Rule) -> bool:
    """Whether a rule's cost is known by one seed alone, although the optimum is by more."""
    return rule in row.regrets and row.regrets[rule].n_seeds == 1 < len(row.losses)


def _regret(row: Tuned, rule: Rule) -> Cell:
    if rule not in row.regrets:
        return nat(NAN)
    cell, seeds = between(row.regrets[rule].cost), row.regrets[rule].n_seeds
    if rests_on_one_seed(row, rule):
        return replace(cell, under="one seed alone")
    some = 0 < seeds < len(row.losses)
    return replace(cell, under=f"{cell.under}, {seeds} seeds") if some else cell


def flags(row: Tuned) -> str:
    """What a reader must know of an optimum, in words."""
    best = row.optimum
    if best is None:
        return "every run diverged" if row.n_diverged else "no finished run"
    told = [f"censored {best.censored}"] if best.censored else []
    told += [f"{name} censored {edge}" for name, edge in best.hp_edges.items()]
    told += ["cliff"] if best.cliff else []
    told += ["best"] if row.is_best else []
    return ", ".join(told)


def batches(suite: Suite, table: list[Tuned]) -> Table:
    """One row per optimizer and axis value."""
    names = rule_names(suite)
    equal = suite.axis == "batch_size"
    counted = unit(suite)
    told = equal and suite.baseline and suite.budgets
    last = (f"{counted} to {suite.baseline}'s loss",) if told else ()
    rows = []
    for row in table:
        cells = [
            word(row.optimizer, "head"),
            count(row.n),
            count(row.steps) if equal else scaled(row.tokens, ""),
            lr_star(row.optimum),
            nat(row.loss),
            *([between(row.difference)] if equal else []),
            *(nat(NAN) if row.n == suite.proxy else _regret(row, rule) for rule in names),
            *([_reach(row)] if last else []),
            count(len(row.losses)),
            word(flags(row), "flag" if flags(row) not in ("", "best") else ""),
        ]
        rows.append(cells)
    columns = (
        "optimizer", axis_name(suite), "steps" if equal else counted, "lr*", "loss",
        *(("above the best batch, nat",) if equal else ()),
        *(f"{name}: regret, nat" for name in names.values()),
        *last, "seeds", "flags",
    )  # fmt: skip
    caption = f"Batch sizes at equal {counted}" if equal else "Numbers of steps"
    return Table(caption, columns, rows, _note(suite))


def _note(suite: Suite) -> str:
    start = f"B0 is batch {suite.proxy}" if suite.tokens else f"T0 is {suite.proxy} steps"
    equal = suite.axis == "batch_size"
    compared = "A regret and the difference to the best row are" if equal else "A regret is"
    mean = "means of differences" if equal else "a mean of differences"
    note = (
        f"The lr is tuned in every row; loss is the mean over the seeds at lr*. {start}, the "
        f"proxy, from which the lr is carried, so its own row has no regret. {compared} {mean} "
        "within a seed, with 95% intervals over the seeds of the row, or over fewer where a "
        "second line says so; a dash stands where no run tells. One seed alone tells where a rule "
        "leads far from lr* and out of the start range: its loss lies on a line between two of its "
        "runs, and a curve that bends upwards lies below that line. A censored optimum has no "
        "regret."
    )
    if suite.axis == "steps":
        return note
    if suite.baseline and suite.budgets:
        note += (
            f" Tokens to a loss: the part of all tokens N on which the optimizer has the loss that "
            f"{suite.baseline} has on N at the same batch, from runs on N / "
            f"{', N / '.join(map(str, sorted(suite.budgets)))} at the lr of N, each with its own "
            "schedule. The second line is a 95% interval by a jackknife over the seeds, each with "
            "both optimizers' losses; > N and < stand for bounds outside the budgets that ran. "
            "Where the loss lies outside the budgets without one of the seeds, there is no "
            "interval, and every seed stands alone."
        )
    return f"{note} {momentum_policy(suite)}"


def laws(suite: Suite, found: dict[str, Law]) -> Table:
    """One row per optimizer with at least three optima: the law of its best lr."""
    few = few_steps(suite)
    rows = [
        [
            word(label, "head"),
            between(law.at[suite.proxy], 2),
            between(law.power if suite.axis == "batch_size" else law.exponent.alpha, 2),
            count(law.exponent.n_values),
            word(", ".join(map(str, law.exponent.left_out)) or "none"),
        ]
        for label, law in found.items()
    ]
    return Table(
        "Law of lr*",
        (
            "optimizer", "log2 c", "r" if suite.axis == "batch_size" else "a", "values used",
            "left out (censored)",
        ),
        rows,
        f"{law_name(suite)}: a straight line by least squares through log2 lr* against log2 of the "
        f"{axis_name(suite)}, so log2 c is the height of the line at {suite.proxy} and not the "
        "optimum found there. Censored optima are left out, and an optimizer with fewer than "
        "three others has no law. The second line is a 95% interval over the seeds, wider where "
        "the optima scatter about the line by more than their standard errors; with one seed "
        "everywhere there is none." + (f" Among the values are {few}." if few else ""),
    )  # fmt: skip


def critical(suite: Suite, found: dict[str, Criticals]) -> Table:
    """One row per optimizer: its critical batch."""
    largest = suite.axis_values[-1]
    rows = []
    for label, own in found.items():
        whole = own.of_means
        alone = ", ".join(batch_text(each, largest) for each in own.by_seed.values())
        cells = [number(NAN, DASH)] * 5
        if whole is not None:
            cells = [
                Cell(batch_text(whole, largest), whole.batch or math.inf, "num"),
                nat(whole.target),
                scaled(whole.tokens, ""),
                count(whole.cheapest),
                count(whole.n_bracketed),
            ]
        rows.append([word(label, "head"), *cells, word(alone or DASH)])
    return Table(
        "Critical batch",
        (
            "optimizer",
            "critical batch",
            "target loss",
            "tokens there",
            "at batch",
            "bracketed by",
            "by seed",
        ),
        rows,
        f"The smallest batch that takes more than {OVERHEAD:g} times the tokens of the cheapest "
        f"batch to the target loss, so that its steps exceed linear scaling by "
        f"{100 * (OVERHEAD - 1):.0f}% (Zhang et al. 2024, arXiv:2410.21676). The target is the "
        f"lowest loss on the second largest budget, or on a smaller one; at least {BRACKETED} "
        "batches must reach it between two budgets, else a dash stands. It is read from means over "
        "the seeds; the last column has every seed alone." + _short(suite),
    )


def _short(suite: Suite) -> str:
    """The steps of the shortest run, where they are few."""
    divisors = [1, *suite.budgets]
    label = next(iter(suite.templates))
    steps = min(suite.template(label, n, k).steps for n in suite.axis_values for k in divisors)
    return f" The shortest of these runs has {steps} steps." if steps < SHORT else ""
