"""Sections -> metrics.json: what the report says, for machines."""

from collections.abc import Sequence
from typing import Any

from hptransfer.analysis import carried, landscape
from hptransfer.analysis.claims import ClaimJudgement, claim_sentence, suite_judgement
from hptransfer.analysis.differences import Difference
from hptransfer.analysis.measured_cost import MeasuredCost
from hptransfer.analysis.points import Spread
from hptransfer.analysis.question import Question
from hptransfer.analysis.sentences import Control, sentence
from hptransfer.documents import metrics as shapes
from hptransfer.documents.values import as_json
from hptransfer.report.batch_shapes import critical_shape, tuned_shape
from hptransfer.report.optimum_shapes import interval_shape, optimum_shape
from hptransfer.report.section import Section, newest_first


def metrics_json(sections: Sequence[Section]) -> dict[str, Any]:
    """The document `Metrics` as JSON values, newest suite first."""
    return as_json(shapes.Metrics([suite_metrics(each) for each in newest_first(sections)]))


def suite_metrics(section: Section) -> shapes.SuiteMetrics:
    """One suite, or one sweep that was made elsewhere, as a document has it."""
    suite = section.suite
    return shapes.SuiteMetrics(
        suite=suite.name,
        records_schema=section.suite.records_schema,
        claim=suite.claim,
        judgement=suite_judgement(section.claims),
        judgement_sentence=claim_sentence(suite, section.claims),
        claims=[claim_shape(each) for each in section.claims],
        negative_control=control_shape(suite, section.control),
        axis=suite.axis,
        proxy=suite.proxy,
        targets=carried.targets(suite, section.rows),
        thresholds=shapes.Thresholds(**suite.thresholds.model_dump()),
        runs=shapes.Runs(section.n_finished, section.n_expected, list(section.missing)),
        transfers=[transfer_shape(suite, each) for each in section.transfers],
        landscapes=[_landscape(each) for each in section.landscapes],
        exponents=[_exponent(each) for each in section.exponents],
        differences=[_difference(each) for each in section.differences],
        points=[_points(each) for each in section.points],
        audits=[_audit(each) for each in section.audits],
        tuned=[
            tuned_shape(section.compared, each, section.laws)
            for each in section.tuned
            if section.compared
        ],
        critical_batches=[critical_shape(*each) for each in section.critical_batches.items()],
    )


def claim_shape(claim: ClaimJudgement) -> shapes.Claim:
    """An expectation and its judgement as a document has them."""
    widest = claim.widest
    return shapes.Claim(
        optimizer=claim.optimizer,
        expected=claim.expected,
        judgement=claim.judgement,
        target=widest.target if widest else None,
        verdict=widest.verdict if widest else None,
        nearer=list(claim.nearer),
    )


def control_shape(suite: Question, control: Control) -> shapes.Control:
    """The negative control as a document has it."""
    return shapes.Control(suite.negative_control, control.shown, control.sentence)


def transfer_shape(suite: Question, each: carried.Transfer) -> shapes.Transfer:
    """A transfer as a document has it."""
    judged = each.judgement
    return shapes.Transfer(
        optimizer=each.optimizer,
        proxy=each.proxy,
        target=each.n,
        verdict=each.verdict,
        indicative=each.indicative,
        on_edge=each.on_edge,
        share_kept=judged.kept if judged else None,
        seeds_needed=judged.seeds_needed if judged else None,
        sentence=sentence(suite, each),
        optimum_at_proxy=optimum_shape(each.at_proxy),
        optimum_at_target=optimum_shape(each.at_target),
        log2_lr_carried=each.carried.log2_lr,
        log2_lr_own=each.own.log2_lr,
        drift=interval_shape(each.drift),
        regret=interval_shape(each.regret),
        octave_down=judged.octave_down if judged else None,
        octave_up=judged.octave_up if judged else None,
        relative_regret=each.relative_regret,
        noise_floor=each.noise_floor,
        n_seeds=each.n_seeds,
        best_loss=each.best_loss,
        carried_loss=each.carried.mean,
        cost=_cost(each.cost),
    )


def _cost(cost: MeasuredCost) -> shapes.MeasuredCost:
    return shapes.MeasuredCost(
        seconds_per_step=cost.seconds_per_step,
        peak_memory_bytes=cost.peak_memory,
        lanes_max=cost.lanes_max,
        tokens_per_second=cost.tokens_per_second,
        flops_per_second=cost.flops_per_second,
        n_diverged=cost.n_diverged,
        n_failed=cost.n_failed,
        tuning_flops=cost.tuning_flops,
        tuning_seconds=cost.tuning_seconds,
        direct_flops=cost.direct_flops,
        direct_seconds=cost.direct_seconds,
        saving_flops=cost.saving_flops,
        saving_seconds=cost.saving_seconds,
    )


def _landscape(each: landscape.Landscape) -> shapes.Landscape:
    basin = each.basin
    return shapes.Landscape(
        optimizer=each.optimizer,
        axis_value=each.n,
        optimum=optimum_shape(each.optimum),
        n_runs=each.n_search,
        n_diverged=each.n_diverged,
        n_failed=each.n_failed,
        sensitivity=basin.sensitivity if basin else None,
        sensitivity_near=basin.relative if basin else None,
        basin_octaves=basin.width if basin else None,
        basin_is_open=basin.is_open if basin else None,
        basin_height=basin.eps if basin else None,
    )


def _exponent(each: landscape.Exponent) -> shapes.Exponent:
    alpha = interval_shape(each.alpha)
    return shapes.Exponent(each.optimizer, alpha, each.n_values, list(each.left_out))


def _difference(each: Difference) -> shapes.OptimizerDifference:
    return shapes.OptimizerDifference(
        axis_value=each.n,
        first=each.first,
        second=each.second,
        difference=interval_shape(each.tested.difference),
        n_seeds=each.tested.n,
        p_value_holm=each.tested.p_holm,
        differs=each.tested.differs,
        censored=list(each.censored),
    )


def _points(each: Spread) -> shapes.PointsSpread:
    return shapes.PointsSpread(
        optimizer=each.optimizer,
        n_points=each.n_points,
        n_curves=each.n_curves,
        n_subsets=each.n_subsets,
        spread=each.spread,
        largest=each.largest,
        standard_error=each.seeds,
        enough=each.enough,
    )


def _audit(each: landscape.Audit) -> shapes.Audit:
    return shapes.Audit(
        optimizer=each.optimizer,
        axis_value=each.n,
        log2_lr_star_by=shapes.OptimumByLoss(each.loss, each.train_loss, each.train_mean),
        optima_differ=each.differs,
        decides_drift=each.changes,
    )
