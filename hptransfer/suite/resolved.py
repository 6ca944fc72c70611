"""A suite with its parts looked up: a run template and limits of the lr per label."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Self

from pydantic import Field

from hptransfer.datasets import Examples, Tokens, Unread
from hptransfer.errors import located
from hptransfer.spec import AXIS_FIELD, COUNT, RunSpec, canonical, fits, round_lr
from hptransfer.suite import parts
from hptransfer.suite.claim import SuiteTable
from hptransfer.suite.parts import GROWTH
from hptransfer.suite.tables import Tuned


class Suite(SuiteTable):
    """A suite with a run template and limits of log2 lr per label.

    A template has lr 2^0, seed 0 and the proxy's axis value. Every run of a label comes from it.
    `tuned`: label -> hyperparameter -> range, of those that its groups name. `ngrams`: n ->
    held-out loss of an n-gram table of the text, nats; {} where it is not known.
    """

    templates: dict[str, RunSpec]
    bounds: dict[str, tuple[float, float]]
    tuned: dict[str, dict[str, Tuned]] = Field(default_factory=dict)
    ngrams: dict[int, float] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        table: SuiteTable,
        templates: dict[str, RunSpec],
        bounds: dict[str, tuple[float, float]],
        tuned: dict[str, dict[str, Tuned]] | None = None,
    ) -> Self:
        """The suite of a table, whose checks ran before, with its templates and limits."""
        own = {"templates": templates, "bounds": bounds, "tuned": tuned or {}}
        return cls.model_construct(**{**dict(table), **own})

    def only(self, labels: list[str]) -> Self:
        """This suite with these labels alone."""
        control = self.negative_control if self.negative_control in labels else None
        return self.model_copy(
            update={
                "optimizers": {k: v for k, v in self.optimizers.items() if k in labels},
                "templates": {k: v for k, v in self.templates.items() if k in labels},
                "negative_control": control,
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

    def clip_lr(self, label: str, log2_lr: float) -> float:
        """The carried log2 lr: the optimum rounded to 1/8 octave, within `lr_limits`."""
        low, high = self.lr_limits(label)
        return min(max(round_lr(log2_lr), low), high)

    def template(self, label: str, value: int | None = None) -> RunSpec:
        """The run template of a label at an axis value; None stands for the proxy."""
        return self.templates[label].at(self.axis, self.proxy if value is None else value)

    def labels(self, specs: Iterable[RunSpec]) -> Iterator[list[str]]:
        """The labels of each run.

        A run belongs to a label if it equals the label's template in all but lr, seed, axis value
        (a count) and the searched hyperparameters (floats).
        """
        axis = AXIS_FIELD[self.axis]
        searched = {
            label: tuple(f"hp.{key}" for key in self.searched(label)) for label in self.templates
        }
        without = {label: ("log2_lr", "seed", axis, *names) for label, names in searched.items()}
        identities = {x: run.identity(*without[x]) for x, run in self.templates.items()}
        for spec in specs:
            own = {names: spec.identity(*names) for names in set(without.values())}
            yield [
                label
                for label in self.templates
                if fits(spec.value(axis), COUNT)
                and own[without[label]] == identities[label]
                and all(type(spec.value(name)) is float for name in searched[label])
            ]

    def names(self, specs: list[RunSpec]) -> dict[str, tuple[str, int]]:
        """Run key -> (label, axis value), for the runs with a label."""
        return {
            spec.key: (label, spec.axis_value(self.axis))
            for spec, labels in zip(specs, self.labels(specs), strict=True)
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
        parts.check_depth(suite.model, [suite.proxy, *suite.targets])
    templates, bounds, tuned = {}, {}, {}
    for label, table in suite.optimizers.items():
        with located(f"optimizers.{label}"):
            part = parts.describe(label, table)
        hp = part.resolve(table.hp, f"optimizers.{label}.hp")
        part.check_clip(suite.setting(label, "clip"), f"optimizers.{label}.clip")
        sampler = suite.setting(label, "sampler")
        parts.check_search(label, table=table, part=part, hp=hp, sampler=sampler)
        if found := parts.tuned(label, table=table, part=part, hp=hp, sampler=sampler):
            tuned[label] = found
        optimizer = {"name": part.name, "revision": part.revision}
        templates[label] = _template(suite, label, data, optimizer, hp)
        bounds[label] = parts.lr_limits(part, table.hp)
    in_order = json.loads(canonical(templates))  # labels and fields in a manifest's order
    runs = {label: RunSpec.from_json(run) for label, run in in_order.items()}
    return Suite.of(suite, runs, bounds, tuned)


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
        steps=suite.steps,
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
