"""The comparison of batch sizes, or of numbers of steps, as metrics.json has it."""

from hptransfer.analysis import batch
from hptransfer.analysis.landscape import Law
from hptransfer.analysis.parabola import Interval
from hptransfer.analysis.reach import Relative
from hptransfer.documents import batches as shapes
from hptransfer.report.optimum_shapes import interval_shape, optimum_shape
from hptransfer.suite.resolved import Suite


def tuned_shape(suite: Suite, row: batch.Tuned, laws: dict[str, Law]) -> shapes.TunedValue:
    """A row of the comparison as a document has it. `laws`: by label."""
    law = laws.get(row.optimizer)
    exponents = batch.rules(suite)
    return shapes.TunedValue(
        optimizer=row.optimizer,
        axis_value=row.n,
        steps=row.steps,
        tokens=row.tokens,
        optimum=optimum_shape(row.optimum),
        log2_lr_of_law=interval_shape(law.at[row.n] if law else Interval()),
        loss=row.loss,
        n_seeds=len(row.losses),
        n_diverged=row.n_diverged,
        is_best=row.is_best,
        above_best=interval_shape(row.difference),
        carried=[
            shapes.CarriedByRule(
                rule, exponents[rule], each.log2_lr, interval_shape(each.cost), each.n_seeds
            )
            for rule, each in row.regrets.items()
        ],
        tokens_to_baseline_loss=_reach(row.relative, row.tokens),
        budgets=[
            shapes.BudgetLoss(size, float(losses.mean()), len(losses))
            for size, losses in row.budgets.items()
        ],
    )


def _reach(found: Relative | None, whole: int) -> shapes.TokensToLoss | None:
    if found is None:
        return None
    return shapes.TokensToLoss(
        tokens=found.of_means.tokens,
        relative=interval_shape(found.share),
        side=found.of_means.side,
        by_seed=[
            shapes.TokensOfSeed(seed, own.tokens / whole, own.side)
            for seed, own in found.by_seed.items()
        ],
    )


def critical_shape(label: str, found: batch.Criticals) -> shapes.CriticalBatch:
    """A critical batch as a document has it."""
    whole = found.of_means
    return shapes.CriticalBatch(
        optimizer=label,
        is_bracketed=whole is not None,
        batch=whole.batch if whole else None,
        target_loss=whole.target if whole else None,
        tokens=whole.tokens if whole else None,
        cheapest_batch=whole.cheapest if whole else None,
        n_batches=whole.n_bracketed if whole else 0,
        by_seed=[
            shapes.CriticalOfSeed(seed, own is not None, own.batch if own else None)
            for seed, own in found.by_seed.items()
        ],
    )
