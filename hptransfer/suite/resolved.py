"""A suite with its parts looked up: a run template and limits of the lr per label."""

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Self

from pydantic import Field

from hptransfer.datasets import Examples, Tokens, Unread
from hptransfer.errors import located
from hptransfer.spec import AXIS_FIELD, COUNT, SCHEMA, RunSpec, canonical, fits, round_lr
from hptransfer.suite import budget, parts
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.grid import HalfOctaves
from hptransfer.suite.parts import GROWTH
from hptransfer.suite.ranges import LR_OCTAVES
from hptransfer.suite.tables import Tuned


class Suite(SuiteTable):
    """A suite with a run template and limits of log2 lr per label.

    A template has lr 2^0, seed 0 and the proxy's axis value. Every run of a label comes from it.
    `tuned`: label -> hyperparameter -> range, of those that its groups name. `decay_rates`:
    hyperparameters that a batch rescales, where the momentum is per token. `ngrams`: n -> held-out
    loss of an n-gram table of the text, nats; {} where it is not known.
    """

    templates: dict[str, RunSpec]
    bounds: dict[str, tuple[float, float]]
    tuned: dict[str, dict[str, Tuned]] = Field(default_factory=dict)
    decay_rates: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    ngrams: dict[int, float] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        table: SuiteTable,
        templates: dict[str, RunSpec],
        bounds: dict[str, tuple[float, float]],
        decay_rates: dict[str, tuple[str, ...]] | None = None,
        tuned: dict[str, dict[str, Tuned]] | None = None,
    ) -> Self:
        """The suite of a table, whose checks ran before, with its templates and limits."""
        own = {
            "templates": templates,
            "bounds": bounds,
            "decay_rates": decay_rates or {},
            "tuned": tuned or {},
        }
        return cls.model_construct(**{**dict(table), **own})

    @property
    def records_schema(self) -> int:
        """That of its runs, which have one in common."""
        return next((run.schema for run in self.templates.values()), SCHEMA)

    def only(self, labels: list[str]) -> Self:
        """This suite with these labels alone."""
        control = self.negative_control if self.negative_control in labels else None
        baseline = self.baseline if self.baseline in labels else None
        return self.model_copy(
            update={
                "optimizers": {k: v for k, v in self.optimizers.items() if k in labels},
                "templates": {k: v for k, v in self.templates.items() if k in labels},
                "negative_control": control,
                "baseline": baseline,
                "controls": [label for label in self.controls if label in labels],
                "expect": {k: v for k, v in self.expect.items() if k in labels},
            }
        )

    def lr_limits(self, label: str) -> tuple[float, float]:
        """Least and largest log2 lr of the grid.

        The start grid may grow by GROWTH octaves per side, within the limits of the optimizer.
        """
        low, high = self.start_grid(label)
        floor, ceiling = self.bounds[label]
        return max(low - GROWTH, floor), min(high + GROWTH, ceiling)

    @property
    def kind(self) -> str:
        return "suite"

    @property
    def unit(self) -> str:
        """That of its losses."""
        return "nat"

    @property
    def reads_between(self) -> bool:
        """No: a carried lr that nobody ran is a missing run."""
        return False

    def lr_text(self, log2_lr: float) -> str:
        """A learning rate in words: `2^-4.125`."""
        return f"2^{log2_lr:g}"

    def lower_lr(self, label: str) -> str:
        """Where to search if every run diverged, as the end of a sentence."""
        low, high = self.start_grid(label)
        lower = max(low - (high - low), int(LR_OCTAVES[0]))
        return f'for instance lr = "2^{lower}..2^{max(low, lower + 1)}"'

    def grid(self, label: str) -> HalfOctaves:
        """The grid on which the search tries learning rates."""
        return HalfOctaves()

    def clip_lr(self, label: str, log2_lr: float) -> float:
        """The carried log2 lr: the optimum rounded to 1/8 octave, within `lr_limits`."""
        low, high = self.lr_limits(label)
        return min(max(round_lr(log2_lr), low), high)

    def template(self, label: str, value: int | None = None, divisor: int = 1) -> RunSpec:
        """The run template of a label at an axis value; None stands for the proxy.

        `divisor`: of the suite's tokens. Raises InputError where the tokens are no whole steps.
        """
        n = self.proxy if value is None else value
        run = self._template(label, n, divisor)
        if run is None:
            assert self.tokens is not None, "every other suite has a template everywhere"
            context = self.templates[label].model.get("context", 1)
            budget.check_batches(self.tokens, [n], context, [divisor])
            raise AssertionError(f"template: batch {n} was refused for no reason")
        return run

    def identity(self, label: str, n: int) -> str | None:
        """20 hex digits of all that the runs of a label at an axis value have in common.

        That is all but lr, seed and the searched hyperparameters. None where the suite has no such
        label, or no whole steps at this value.
        """
        run = self._template(label, n, 1) if label in self.templates else None
        if run is None:
            return None
        searched = (f"hp.{key}" for key in self.searched(label))
        return run.identity("log2_lr", "seed", *searched)

    def _template(self, label: str, n: int, divisor: int) -> RunSpec | None:
        run = self.templates[label].at(self.axis, n)
        if self.tokens is None:
            return run
        run = budget.per_token(run, self.decay_rates.get(label, ()), self.batch)
        return budget.spent(run, self.tokens // divisor)

    def labels(self, specs: Iterable[RunSpec], divisor: int = 1) -> Iterator[list[str]]:
        """The labels of each run.

        A run belongs to a label if it equals the label's template at its axis value (a count) in
        all but lr, seed and the searched hyperparameters (floats).
        """
        axis = AXIS_FIELD[self.axis]
        searched = {
            label: tuple(f"hp.{key}" for key in self.searched(label)) for label in self.templates
        }
        without = {label: ("log2_lr", "seed", *names) for label, names in searched.items()}

        @functools.cache
        def identity(label: str, n: int) -> str | None:
            run = self._template(label, n, divisor)
            return None if run is None else run.identity(*without[label])

        for spec in specs:
            own = {names: spec.identity(*names) for names in set(without.values())}
            yield [
                label
                for label in self.templates
                if fits(spec.value(axis), COUNT)
                and own[without[label]] == identity(label, spec.axis_value(self.axis))
                and all(type(spec.value(name)) is float for name in searched[label])
            ]

    def names(self, specs: list[RunSpec]) -> dict[str, tuple[str, int]]:
        """Run key -> (label, axis value), for the runs with a label in any budget."""
        return {
            spec.key: (label, spec.axis_value(self.axis))
            for divisor in (1, *self.budgets)
            for spec, labels in zip(specs, self.labels(specs, divisor), strict=True)
            for label in labels
        }

    def searched_point(self, label: str, spec: RunSpec) -> str:
        """The searched hyperparameters of a run of this label, as canonical JSON."""
        return canonical({key: spec.hp[key] for key in self.searched(label)})

    def searched(self, label: str) -> list[str]:
        """The hyperparameters that differ among the runs of a label, sorted."""
        return sorted({*self.optimizers[label].search, *self.tuned.get(label, {})})


def resolve(suite: SuiteTable, data: Tokens | Examples | Unread) -> Suite:
    """A suite with the run template of each label, after a check of every part.

    Raises InputError for an unknown part, an unknown field, or a value outside its limits.
    """
    if suite.axis == "depth":
        parts.check_depth(suite.model, suite.axis_values)
    templates, bounds, decay_rates, tuned = {}, {}, {}, {}
    for label, table in suite.optimizers.items():
        with located(f"optimizers.{label}"):
            part = parts.describe(label, table)
        hp = part.resolve(table.hp, f"optimizers.{label}.hp")
        part.check_clip(suite.setting(label, "clip"), f"optimizers.{label}.clip")
        sampler = suite.setting(label, "sampler")
        parts.check_search(label, table=table, part=part, hp=hp, sampler=sampler)
        if found := parts.tuned(label, table=table, part=part, hp=hp, sampler=sampler):
            tuned[label] = found
        optimizer = parts.identity(table, part)
        templates[label] = _template(suite, label, data, optimizer, hp)
        bounds[label] = parts.lr_limits(part, table.hp)
        if suite.momentum == "per_token":
            decay_rates[label] = parts.decay_rates(label, table, part)
    in_order = json.loads(canonical(templates))  # labels and fields in a manifest's order
    runs = {label: RunSpec.from_json(run) for label, run in in_order.items()}
    resolved = Suite.of(suite, runs, bounds, decay_rates, tuned)
    if suite.axis == "batch_size":
        _check_batches(resolved, data)
    return resolved


def _check_batches(suite: Suite, data: Tokens | Examples | Unread) -> None:
    """Raises InputError for a batch without whole steps, or of more examples than the data has.

    Every decay rate must lie within the limits of its optimizer at every batch.
    """
    batches = suite.axis_values
    context = next(iter(suite.templates.values())).model.get("context", 1)
    budget.check_data(batches[-1], data.train_examples(context), _key(suite, batches[-1]))
    if suite.tokens is None:
        return
    budget.check_batches(suite.tokens, batches, context, suite.budgets)
    for label, names in suite.decay_rates.items():
        limits = parts.describe(label, suite.optimizers[label]).limits
        for batch in batches:
            hp = suite.template(label, batch).hp
            budget.check_decay_rates(
                f"optimizers.{label}.hp",
                {name: (suite.templates[label].hp[name], hp[name]) for name in names},
                limits,
                (suite.batch, batch),
            )


def _key(suite: SuiteTable, n: int) -> str:
    """The field of a suite that names an axis value."""
    if n == suite.proxy:
        return "proxy"
    return "targets" if n in suite.targets else "waypoints"


def _template(
    suite: SuiteTable,
    label: str,
    data: Tokens | Examples | Unread,
    optimizer: dict[str, Any],
    hp: dict[str, Any],
) -> dict[str, Any]:
    source = {**parts.identify("dataset", suite.data), "sha256": data.sha256}
    source.pop("path", None)  # the bytes identify a run, not their path
    model = parts.model_of(label, suite.model, suite.optimizers[label].model)
    return RunSpec(
        model=model,
        data=source,
        optimizer=optimizer,
        hp=hp,
        width=suite.width or suite.proxy,
        base=suite.base,
        log2_lr=0.0,
        steps=suite.steps or 1,  # a budget of tokens gives every batch its own
        batch=suite.batch,
        schedule=suite.setting(label, "schedule"),
        warmup=suite.setting(label, "warmup"),
        clip=suite.setting(label, "clip"),
        precision=suite.precision,
        eval_examples=_eval_examples(suite, model, data),
        seed=0,
    ).to_json()


def _eval_examples(
    suite: SuiteTable, model: dict[str, Any], data: Tokens | Examples | Unread
) -> int:
    """Held-out examples of the final loss: `eval_tokens` of text, every labelled one."""
    context = model.get("context")
    if context is None:
        return data.heldout_examples(1)
    return min(max(1, suite.eval_tokens // context), data.heldout_examples(context))
