"""Which column of a table is what: by its name, or as an option says."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hptransfer.errors import InputError, suggest

LR = (
    "lr", "learning_rate", "learningrate", "log2_lr", "log2lr", "log10_lr", "log10lr", "peak_lr",
    "lr_peak", "max_lr", "lr_max", "base_lr", "init_lr", "initial_lr", "eta",
)  # fmt: skip
LOSS = (
    "val_loss", "valid_loss", "validation_loss", "eval_loss", "heldout_loss", "final_val_loss",
    "final_eval_loss", "val_nll", "test_loss", "final_loss", "loss", "nll", "cross_entropy",
    "final_train_loss", "train_loss", "training_loss", "value",
)  # fmt: skip
AXES = {
    "width": ("width", "d_model", "n_embd", "hidden_size", "hidden_dim", "embed_dim", "model_dim",
              "dim", "channels"),
    "depth": ("depth", "n_layer", "n_layers", "num_layers", "layers", "num_hidden_layers"),
    "params": ("params", "n_params", "num_params", "parameters", "model_size", "size"),
    "tokens": ("tokens", "n_tokens", "num_tokens", "train_tokens"),
    "batch_size": ("batch_size", "batch", "global_batch_size", "bs"),
    "steps": ("steps", "n_steps", "num_steps", "max_steps", "train_steps", "max_iters"),
}  # fmt: skip
"""Axis -> the names of its column, in the order in which an axis is looked for."""
SEED = ("seed", "random_seed", "rng_seed", "run_seed", "replicate")
GROUP = (
    "optimizer", "optimiser", "optim", "opt", "optimizer_name", "parametrization",
    "parameterization", "method", "algorithm", "algo", "variant", "group",
)  # fmt: skip
STATUS = ("diverged", "is_diverged", "has_diverged", "status", "state", "outcome")
PROGRESS = ("step", "global_step", "epoch", "iteration", "iter", "trained_steps")
LOSS_INIT = ("loss_init", "init_loss", "initial_loss")
PREFIXES = ("config", "params", "summary", "user_attrs", "hparams", "args", "hyperparameters")

ACCURACIES = re.compile(r"acc|top_?[15]|bleu|reward|score|f1|auc", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What the options say of a table: names of its columns, values that rows must have, and more.

    `hold`: column -> the text of the value that a row must have. `higher_is_better`: the loss
    column is an accuracy or the like. `lr_scale`: of the lr column. `loss_init`: loss before the
    first step, which a divergence counts as.
    """

    lr: str | None = None
    loss: str | None = None
    axis: str | None = None
    group: Sequence[str] = ()
    seed: str | None = None
    status: str | None = None
    hold: dict[str, str] = field(default_factory=dict)
    higher_is_better: bool = False
    lr_scale: str | None = None
    loss_init: float | None = None


def plain(name: str) -> str:
    """`eval/Loss` -> eval_loss; a prefix such as `config.` is left out."""
    words = re.sub(r"[^0-9a-z]+", "_", name.strip().lower()).strip("_")
    start, _, rest = words.partition("_")
    return plain(rest) if start in PREFIXES and rest and re.search(r"[._/]", name) else words


def matching(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The columns with one of the names, in the order of the names."""
    listed = list(columns)
    return [column for name in names for column in listed if plain(column) == name]


def column(columns: Sequence[str], name: str, option: str) -> str:
    """The column that an option names: exactly, or in the form of `plain`. Raises InputError."""
    if name in columns:
        return name
    close = [each for each in columns if plain(each) == plain(name)]
    if len(close) == 1:
        return close[0]
    raise InputError(
        f"there is no column {name!r}" if not close else f"{name!r} may be {' or '.join(close)}",
        suggest(name, columns) or f"columns: {listed(columns)}",
        option=option,
    )


def listed(columns: Sequence[str], most: int = 30) -> str:
    """Names for a message."""
    rest = f" and {len(columns) - most} others" if columns[most:] else ""
    return ", ".join(columns[:most]) + rest
