"""Names and targets -> parts (optimizers, models, data sets), described without an import.

`describe` reads the source with `ast`, so that `list` and `report` know every default without
torch; `load` imports. Built-in parts and plug-ins resolve the same way.
"""

import ast
import functools
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from hptransfer.errors import InputError, quoted, suggest
from hptransfer.registry import imports, source

BUILTINS: dict[str, dict[str, str]] = {
    "optimizer": {
        "adamw": "hptransfer.optimizers.adamw:adamw",
        "adamw_emb": "hptransfer.optimizers.adamw:adamw_emb",
        "adamw_mup": "hptransfer.optimizers.adamw:adamw_mup",
        "ema_nesterov": "hptransfer.optimizers.ema_nesterov:ema_nesterov",
        "lion": "hptransfer.optimizers.lion:lion",
        "moga_col": "hptransfer.optimizers.moga:moga_col",
        "moga_official": "hptransfer.optimizers.moga:moga_official",
        "moga_row": "hptransfer.optimizers.moga:moga_row",
        "muon": "hptransfer.optimizers.muon:muon",
        "muon_sp": "hptransfer.optimizers.muon:muon_sp",
        "nsgd": "hptransfer.optimizers.sgd:nsgd",
        "scion": "hptransfer.optimizers.scion:scion",
        "scion_light": "hptransfer.optimizers.scion:scion_light",
        "scion_unconstrained": "hptransfer.optimizers.scion:scion_unconstrained",
        "sgd": "hptransfer.optimizers.sgd:sgd",
        "signsgd": "hptransfer.optimizers.sgd:signsgd",
        "transported_scion": "hptransfer.optimizers.transported:transported_scion",
    },
    "model": {
        "gpt": "hptransfer.models.gpt:gpt",
        "mlp": "hptransfer.models.mlp:mlp",
        "vit": "hptransfer.models.vit:vit",
        "cnn": "hptransfer.models.cnn:cnn",
        "plateau": "hptransfer.models.plateau:plateau",
    },
    "dataset": {
        "python_source": "hptransfer.datasets.text:python_source",
        "english": "hptransfer.datasets.text:english",
        "file": "hptransfer.datasets.text:file",
        "mnist5k": "hptransfer.datasets.images:mnist5k",
    },
}


@dataclass(frozen=True)
class Part:
    """An optimizer, a model or a data set, as its source describes it.

    `target`: `module:name` or `file.py:name`. `defaults`, `choices`, `limits`: by field; `limits`
    also bounds `log2_lr` (octaves) and `clip`. `groups`: GROUP.FIELD -> the hyperparameter that
    sets it. `revision`: a number for a built-in part, else 16 hex digits of the sha256 of its
    file. `summary`: the first line of the docstring `doc`. `decay_rates`: fields that say how
    slowly an average forgets per step, None if not stated. `takes`: what an optimizer is called
    with: `param`, one Param, for a function that returns a rule; `params`, all parameters, for a
    class of torch's kind; `model`, the module, where its first argument has this name.
    """

    kind: str
    name: str
    target: str
    summary: str
    defaults: dict[str, Any]
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    revision: int | str = 0
    doc: str = ""
    decay_rates: tuple[str, ...] | None = None
    takes: Literal["param", "params", "model"] = "param"

    @property
    def address(self) -> str:
        """The name of a built-in part, the target of a plug-in; a suite takes either."""
        return self.name if self.name in BUILTINS[self.kind] else self.target

    def lr_limits(self, hp: dict[str, Any]) -> tuple[float, float] | None:
        """Limits of log2 lr with these hyperparameters, None for no limit.

        A true flag may have limits of its own.
        """
        for key, value in hp.items():
            if value is True and f"{key}.log2_lr" in self.limits:
                return self.limits[f"{key}.log2_lr"]
        return self.limits.get("log2_lr")

    def check_clip(self, clip: float, where: str) -> None:
        """Raises InputError where the limits of this optimizer exclude the gradient norm `clip`."""
        least, most = self.limits.get("clip", (clip, clip))
        if not least <= clip <= most:
            raise InputError(
                f"{where}: got {clip:g}, allowed: {least:g} to {most:g} for {self.name}",
                f"{where} = {most:g} holds for this optimizer alone",
            )

    def resolve(self, values: dict[str, Any], where: str) -> dict[str, Any]:
        """The defaults with `values` in their place, checked. Raises InputError at `where.key`."""
        resolved = dict(self.defaults)
        for key, value in values.items():
            place = f"{where}.{key}"
            if key not in self.defaults:
                allowed = ", ".join(self.defaults) or "none"
                raise InputError(
                    f"{place}: {self.name!r} has no field {key!r}",
                    suggest(key, self.defaults) or f"fields of {self.name}: {allowed}",
                )
            resolved[key] = self._checked(key, value, place)
        return resolved

    def _checked(self, key: str, value: Any, place: str) -> Any:
        default = self.defaults[key]
        if key in self.choices and value not in self.choices[key]:
            names = ", ".join(self.choices[key])
            raise InputError(
                f"{place}: got {quoted(value)}, allowed: {names}", suggest(value, names)
            )
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise InputError(
                f"{place}: got {quoted(value)} ({type(value).__name__}), "
                f"needs a {type(default).__name__}",
                f"the default is {default!r}",
            )
        if key in self.limits:
            low, high = self.limits[key]
            if not low <= value <= high:
                raise InputError(
                    f"{place}: got {value}, allowed: {low} to {high}", f"the default is {default}"
                )
        return value


def _entries(kind: str) -> Any:
    from importlib.metadata import entry_points  # slow to import, and --help does not need it

    return entry_points(group=f"hptransfer.{kind}s")


def names(kind: str) -> list[str]:
    """Every name of a kind: built-in and from entry points `hptransfer.<kind>s`."""
    return [*BUILTINS[kind], *(entry.name for entry in _entries(kind))]


def target(kind: str, name: str) -> str:
    """A name, `file.py:name` or `pkg.mod:name` -> `module:name`. Raises InputError."""
    if name in BUILTINS[kind]:
        return BUILTINS[kind][name]
    for entry in _entries(kind):
        if entry.name == name:
            return entry.value
    if ":" in name:
        module, _, attribute = name.rpartition(":")
        if module.endswith(".py"):  # absolute, because a worker may start in another folder
            return f"{os.path.realpath(os.path.expanduser(module))}:{attribute}"
        return name
    choices = names(kind)
    raise InputError(
        f"unknown {kind} {name!r}",
        suggest(name, choices) or f"{kind}s: {', '.join(choices)}, or my_file.py:my_{kind}",
    )


_PLUGINS: dict[tuple[str, str, str], str] = {}


def plugins() -> dict[tuple[str, str, str], str]:
    """(kind, name, revision) -> target of every plug-in described so far; for `admit`."""
    return dict(_PLUGINS)


def admit(targets: dict[tuple[str, str, str], str]) -> None:
    """Tell this process, a worker, where the plug-ins lie that a spec may name."""
    _PLUGINS.update(targets)


def describe(kind: str, name: str) -> Part:
    """Fields, summary, limits and revision of a part, from its source.

    Fields are the arguments with a literal default, after the first argument. Choices are the
    values of a `Literal[...]` annotation. The module constants LIMITS (by field) and REVISION (by
    part) are dictionaries. In LIMITS `NAME.log2_lr` bounds the learning rate of one optimizer, in
    octaves; `NAME.FLAG.log2_lr` bounds it where the field FLAG is true; `NAME.clip` bounds the
    gradient norm of `clip`. GROUPS, by part, names the field that sets GROUP.FIELD. DECAY_RATES (by
    part) names the fields that are decay rates of an average over the steps. A plug-in has the
    sha256 of its file as revision.
    Raises InputError where there is no such part, or its source cannot be read.
    """
    where = target(kind, name)
    if where in BUILTINS[kind].values():
        return _built_in(kind, name, where)
    return _describe(kind, name, where)


@functools.cache
def _built_in(kind: str, name: str, where: str) -> Part:
    return _describe(kind, name, where)


def _describe(kind: str, name: str, where: str) -> Part:
    module, node = source.definition(kind, where, name)
    attribute = where.rpartition(":")[2]
    home, called = source.called(kind, name, module, node)
    fields = home.fields(kind, name, called)
    builtin = where in BUILTINS[kind].values()
    revision = module.table("REVISION").get(attribute) if builtin else None
    part = Part(
        kind=kind,
        name=attribute if ":" in name else name,
        target=where,
        summary=(ast.get_docstring(node) or "").split("\n")[0],
        defaults={key: field.default for key, field in fields.items()},
        choices={key: field.choices for key, field in fields.items() if field.choices},
        limits=_limits(module.table("LIMITS"), attribute, fields),
        groups=module.table("GROUPS").get(attribute, {}),
        revision=revision or hashlib.sha256(module.path.read_bytes()).hexdigest()[:16],
        doc=ast.get_docstring(node) or "",
        decay_rates=_decay_rates(name, module.table("DECAY_RATES").get(attribute), fields),
        takes="model" if called.first == "model" else "params" if called.of_class else "param",
    )
    if not builtin:
        _PLUGINS[(kind, part.name, str(part.revision))] = where
    return part


def _limits(
    table: dict[str, tuple[float, float]], name: str, fields: dict[str, source.Field]
) -> dict[str, tuple[float, float]]:
    """Limits of one part in a table of LIMITS.

    A field stands there as `FIELD` or `NAME.FIELD`, a setting of a run (log2_lr, clip) likewise.
    """
    flags = [key for key, field in fields.items() if isinstance(field.default, bool)]
    settings = ["log2_lr", *(f"{flag}.log2_lr" for flag in flags)]
    own = {
        key: table[entry]
        for key in (*fields, *settings)
        for entry in (key, f"{name}.{key}")
        if entry in table
    }
    if "clip" not in fields and f"{name}.clip" in table:
        own["clip"] = table[f"{name}.clip"]
    return own


def _decay_rates(name: str, stated: Any, fields: dict[str, source.Field]) -> tuple[str, ...] | None:
    """The decay rates that a module states. Raises InputError for one that is no real field."""
    if stated is None:
        return None
    names = (stated,) if isinstance(stated, str) else tuple(stated)
    for each in names:
        if each not in fields or type(fields[each].default) is not float:
            raise InputError(
                f"optimizer {name!r}: DECAY_RATES names {each!r}, which is no real-valued field",
                f"fields: {', '.join(fields)}",
            )
    return names


def with_field(kind: str, field: str) -> list[str]:
    """Names of the built-in parts with this field."""
    return [name for name in BUILTINS[kind] if field in describe(kind, name).defaults]


def load_spec(kind: str, table: dict[str, Any]) -> Any:
    """Import the part that a run's spec names. Raises InputError where its source has changed.

    `table`: the part's name and revision.
    """
    name, revision = table["name"], table["revision"]
    where = _PLUGINS.get((kind, name, str(revision)))
    if where is None:
        return load(kind, name)
    if describe(kind, where).revision != revision:
        raise InputError(
            f"{kind} {name!r}: its source has changed since the run began", "start again"
        )
    return load(kind, where)


def load(kind: str, name: str) -> Any:
    """Import a part. Raises InputError where it cannot be found."""
    part = describe(kind, name)
    return _load(kind, name, part.target, part.revision)


@functools.cache
def _load(kind: str, name: str, target: str, revision: int | str) -> Any:
    """The import of `load`; `revision` is a part of the cache's key, so an edit imports anew."""
    del revision
    return imports.loaded(kind, name, target)
