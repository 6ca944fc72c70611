"""From a run's spec to its model, and to the parameters as optimizers see them."""

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import nn

from hptransfer import registry
from hptransfer.datasets import Examples, Tokens
from hptransfer.errors import InputError, broken
from hptransfer.spec import Param, RunSpec
from hptransfer.train.roles import kinds

Data = Tokens | Examples


def model_factory(spec: RunSpec, data: Data) -> Callable[[int], nn.Module]:
    """A function of the width that builds the model of a spec on the current default device.

    What the data say of themselves (vocab; in_shape, n_classes) goes to a factory that asks for it.
    Raises InputError where the model cannot be found or reads other data; the function raises it
    where building fails or gives no module.
    """
    name = spec.model["name"]
    fields = {k: v for k, v in spec.model.items() if k not in ("name", "revision")}
    if "context" in fields and isinstance(data, Examples):
        raise InputError(
            f"model {name!r}: reads tokens, and the data {data.name!r} are images",
            f"models of images: {', '.join(registry.with_field('model', 'in_shape'))}",
        )
    factory = registry.load_spec("model", spec.model)
    asked = inspect.signature(factory).parameters
    fields |= {k: v for k, v in data.dims.items() if k in asked}

    def build(width: int) -> nn.Module:
        try:
            model = factory(width, **fields)
        except InputError:
            raise
        except Exception as error:  # whatever a model of somebody's own does wrong is wrong input
            what = f"model {name!r}: building it at width {width} failed"
            raise broken(what, error, "another width, or other fields of the model") from None
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model {name!r}: gave a {type(model).__name__}",
                "a model is a function of the width that returns a torch.nn.Module",
            )
        return model

    return build


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated parts of a model: the members of its outermost nn.ModuleLists."""
    members: list[nn.Module] = []
    for child in model.children():
        members += list(child) if isinstance(child, nn.ModuleList) else blocks(child)
    return members


def context_of(spec: RunSpec) -> int:
    """Tokens per sequence. Raises InputError for a model of images on text."""
    if "context" not in spec.model:
        raise InputError(
            f"model {spec.model['name']!r}: text data need its field `context`",
            "give the model's function an argument such as context: int = 64",
        )
    return spec.model["context"]


def describe_params(spec: RunSpec, model: Callable[[int], nn.Module]) -> list[Param]:
    """Every parameter with its role and its shapes at `width` and at the base width.

    Raises InputError where a role is neither said nor to be seen.
    """
    with torch.device("meta"):
        own, wider = model(spec.width), model(2 * spec.width)
        base = model(spec.base.get("width", spec.width))
    try:
        return params(own, wider, base, depth_m=_depth_m(spec))
    except InputError as error:
        raise InputError(f"model {spec.model['name']!r}: {error}", error.hint) from None


def params(
    model: nn.Module,
    wider: nn.Module,
    base: nn.Module,
    said: Mapping[str, str] | None = None,
    depth_m: float = 1.0,
) -> list[Param]:
    """The parameters of a module; `wider` is it at another width, `base` at the base width.

    `said`: roles that need not be inferred, by default the module's own `roles()`.
    """
    roles: Callable[[], Mapping[str, str]] | None = getattr(model, "roles", None)
    own = roles() if roles is not None else {}
    kind_of = kinds(model, wider, own if said is None else said)
    base_shapes = {name: tuple(p.shape) for name, p in base.named_parameters()}
    described = []
    for name, p in model.named_parameters():
        if name not in base_shapes:
            raise InputError(
                f"{name}: not in the model at the base width",
                "widths must share their parameters' names",
            )
        shapes = {"shape": tuple(p.shape), "base_shape": base_shapes[name]}
        described.append(Param(name, **shapes, **vars(kind_of[name]), depth_m=depth_m))
    return described


def _depth_m(spec: RunSpec) -> float:
    """Depth over the base depth of CompleteP, where the model scales its residual branches."""
    base = spec.model.get("residual_base", 0)
    return spec.model["n_layer"] / base if base else 1.0
