"""The tables of a suite's tails: a verdict per layer and moment, and all estimates."""

import math
from collections.abc import Sequence

from hptransfer.analysis.sentences import place, power_of_two, signed
from hptransfer.documents.tails import Estimated, LayerTail, TailRun
from hptransfer.report.cells import DASH, Cell, Table, count, number, word
from hptransfer.suite.resolved import Suite

NAN = float("nan")
CHIPS = {"heavy": "heavy", "light": "light", "undecided": "undecided", "no noise": "silent"}
"""Verdict -> CSS class of its chip."""
OLDER = (
    "An earlier version of hptransfer measured these tails, without the numbers of the Hill plot "
    "and without the settings of the run."
)
OTHER = (
    "The settings of this run are not those of the suite's records: its steps, its data or the "
    "version of hptransfer differ."
)
READING = (
    "Each cell has the verdict; Hill's index of the largest 5% of the norms with its 95% interval; "
    "gamma, the moment estimator, with its standard error. Below an index of 2 the variance is "
    "infinite. Heavy needs an interval below 2 and a gamma above 1/2; light needs an index above 2 "
    "and a gamma that is below 1/2 by more than two standard errors."
)
MISLEADS = (
    "The pooled fit is the popular estimate, a stable law fitted to all entries of a layer at "
    "once: it misleads because it takes rows of different scale for large noise, so it calls "
    "Gaussian noise heavy, and no verdict rests on it."
)


def examples(batch: int) -> str:
    """What a gradient is of, in words: `single examples`, `batches of 8`."""
    return "single examples" if batch == 1 else f"batches of {batch}"


def title(suite: Suite, run: TailRun) -> str:
    """The run in words."""
    return (
        f"{run.optimizer} at {place(suite, run.axis_value)}, lr {power_of_two(run.log2_lr)} "
        f"({run.lr_source}), {run.steps} steps, {run.pairs:,} pairs"
    )


def remark(suite: Suite, run: TailRun) -> str:
    """Why the run may not be one of the suite's, "" where it is."""
    if not run.settings or not run.curve_k:
        return f"{OLDER} `hptransfer tails {suite.name}` measures them again."
    if run.settings != suite.identity(run.optimizer, run.axis_value):
        return OTHER
    return ""


def value(estimated: Estimated) -> float:
    """The number, NaN where it could not be estimated."""
    return NAN if estimated.value is None else estimated.value


def error(estimated: Estimated) -> float:
    """The standard error, NaN where it could not be estimated."""
    return NAN if estimated.standard_error is None else estimated.standard_error


def index_text(estimated: Estimated) -> str:
    """`1.04 (0.90 to 1.19)`: an index with its 95% interval; a dash without one."""
    a, se = value(estimated), error(estimated)
    if not math.isfinite(a) or not math.isfinite(se):
        return DASH
    return f"{_short(a)} ({_short(a - 2 * se)} to {_short(a + 2 * se)})"


def gamma_text(estimated: Estimated) -> str:
    """`gamma 0.81 ± 0.09`: the moment estimator with its standard error."""
    g, se = value(estimated), error(estimated)
    if not math.isfinite(g) or not math.isfinite(se):
        return f"gamma {DASH}"
    return f"gamma {_signed(g)} ± {_signed(se)}"


def _short(number: float) -> str:
    """Three digits: two decimals below 10, none from 100 on."""
    return _signed(number) if abs(number) < 9.995 else _large(number)


def _signed(number: float) -> str:
    """Two decimals, none from 100 on."""
    return signed(number, 2) if abs(number) < 100 else _large(number)


def _large(number: float) -> str:
    text = f"{number:.0f}" if 100 <= abs(number) < 1e6 else f"{number:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def batches(run: TailRun) -> list[int]:
    """Numbers of examples per gradient, rising."""
    return sorted({each.batch for each in run.layers})


def moments(run: TailRun, batch: int) -> list[int]:
    """Steps of training after which gradients of `batch` examples were measured, rising."""
    return sorted({each.step for each in run.layers if each.batch == batch})


def overview(run: TailRun, batch: int) -> Table:
    """One row per layer, one column per moment, for gradients of `batch` examples.

    The first table of a run says how to read it.
    """
    own = [each for each in run.layers if each.batch == batch]
    steps = moments(run, batch)
    rows = []
    for layer in dict.fromkeys(each.layer for each in own):
        at = {each.step: each for each in own if each.layer == layer}
        cells = [_moment(at[step]) if step in at else number(NAN, "") for step in steps]
        rows.append([word(layer, "head"), *cells, _pooled(list(at.values()))])
    columns = ("layer", *(f"after {step} steps" for step in steps), "pooled fit")
    note = f"{READING} {MISLEADS}" if batch == batches(run)[0] else ""
    return Table(f"Gradients of {examples(batch)}", columns, rows, note)


def _moment(each: LayerTail) -> Cell:
    found = each.frobenius
    under = f"{index_text(found.hill_5)}\n{gamma_text(found.gamma)}"
    if found.verdict == "no noise":
        under = "every gradient is zero"
    a = value(found.hill_5)
    return Cell(
        found.verdict, a if math.isfinite(a) else math.inf, f"v {CHIPS[found.verdict]}", under
    )


def _pooled(own: Sequence[LayerTail]) -> Cell:
    """From the least to the largest fit over the moments."""
    fits = [x for each in own if (x := each.pooled_stable_fit) is not None]
    if not fits:
        return number(NAN, "")
    low, high = _signed(min(fits)), _signed(max(fits))
    return number(min(fits), low if low == high else f"{low} to {high}")


def estimates(run: TailRun) -> Table:
    """One row per layer, number of examples and moment."""
    order = {each.layer: i for i, each in enumerate(run.layers)}
    ordered = sorted(run.layers, key=lambda each: (order[each.layer], each.batch, each.step))
    rows = [
        [
            word(each.layer, "head"),
            count(each.batch),
            count(each.step),
            *_norm(each.frobenius.verdict, each.frobenius.hill_5),
            *(_plain(of) for of in (each.frobenius.hill_2, each.frobenius.hill_10)),
            _plain(each.frobenius.gamma),
            *_norm(each.spectral.verdict, each.spectral.hill_5),
            _number(each.p_eff),
            _number(each.pooled_stable_fit),
        ]
        for each in ordered
    ]
    columns = (
        "layer", "examples", "step", "verdict", "index", "at 2%", "at 10%", "gamma",
        "spectral verdict", "spectral index", "p_eff", "pooled fit",
    )  # fmt: skip
    note = (
        "Index, verdict and gamma are of Frobenius norms, the two columns that say so of spectral "
        "norms. p_eff is the exponent that averages over single examples show; 2 is averaging at "
        "its best."
    )
    return Table(f"All {len(rows)} estimates", columns, rows, note)


def _norm(verdict: str, index: Estimated) -> list[Cell]:
    return [Cell(verdict, verdict, f"v {CHIPS[verdict]}"), _plain(index)]


def _plain(estimated: Estimated) -> Cell:
    se = error(estimated)
    under = f"± {_short(se)}" if math.isfinite(se) else ""
    return number(value(estimated), _signed(value(estimated)), under)


def _number(of: float | None) -> Cell:
    return number(NAN if of is None else of, "" if of is None else _signed(of))
