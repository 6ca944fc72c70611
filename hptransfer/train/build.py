"""From a run's spec to its model, and to the parameters as optimizers see them."""

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from hptransfer import registry
from hptransfer.datasets import Examples, Tokens
from hptransfer.errors import InputError, broken
from hptransfer.spec import Param, RunSpec
from hptransfer.train import forward
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

    _check_width(name, factory)

    def build(width: int) -> nn.Module:
        try:
            model = factory(width, **fields)
        except InputError:
            raise
        except Exception as error:  # whatever a model of somebody's own does wrong is wrong input
            what = f"model {name!r}: building it at width {width} failed"
            hint = "another width, or other fields of the model"
            raise broken(what, error, hint) from error
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model {name!r}: gave a {type(model).__name__}",
                "a model is a function of the width that returns a torch.nn.Module",
            )
        return model

    return build


def _check_width(name: str, factory: Callable[..., object]) -> None:
    """Raises InputError for a class whose first argument may be something else than the width."""
    arguments = list(inspect.signature(factory).parameters.values())
    first = arguments[0] if arguments else None
    if first is not None and first.name == "width" and first.default is not first.empty:
        raise InputError(
            f"model {name!r}: its argument width has a default",
            "a suite gives the width: the first argument, without a default",
        )
    if isinstance(factory, type) and (first is None or first.name != "width"):
        got = "no argument" if first is None else f"{first.name!r} as first argument"
        raise InputError(
            f"model {name!r}: a class with {got}, and a model is made from its width",
            "call the first argument `width`, or write a function of the width: "
            f"def model(width): return {factory.__name__}(...)",
        )


def examples(spec: RunSpec, data: Data, n: int) -> tuple[Tensor, Tensor]:
    """n inputs of zeros and their labels, on the current default device."""
    if isinstance(data, Tokens):
        x = torch.zeros(n, context_of(spec), dtype=torch.long)
        return x, x
    x = torch.zeros(n, *data.dims["in_shape"])
    return x, torch.zeros(n, dtype=torch.long)


def is_own(spec: RunSpec) -> bool:
    """Whether the model is somebody's own: nobody has checked it."""
    return spec.model["name"] not in registry.BUILTINS["model"]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated parts of a model: the members of its outermost nn.ModuleLists, each once."""
    members: dict[nn.Module, None] = {}
    for child in model.children():
        members |= dict.fromkeys(child if isinstance(child, nn.ModuleList) else blocks(child))
    return list(members)


def context_of(spec: RunSpec) -> int:
    """Tokens per sequence. Raises InputError for a model of images on text."""
    if "context" not in spec.model:
        raise InputError(
            f"model {spec.model['name']!r}: text data need its field `context`",
            "give the model's function an argument such as context: int = 64",
        )
    return spec.model["context"]


def describe_params(spec: RunSpec, data: Data, model: Callable[[int], nn.Module]) -> list[Param]:
    """Every parameter that trains, with its role and its shapes at `width` and at the base width.

    A model of somebody's own makes one forward pass, for what no shape shows. All is done on the
    meta device, which has no numbers; a model that reads some is built on the CPU, where its
    forward pass is made at the narrower width. Raises InputError where a role is neither said nor
    to be seen, and where no run of the model could be right.
    """
    base_width = spec.base.get("width", spec.width)
    own, wider, base = _three(model, spec.width, base_width)
    try:
        found = params(own, wider, base, depth_m=_depth_m(spec))
        if is_own(spec):
            _pass_forward(spec, data, model, found)
    except InputError as error:
        raise _of_model(spec, error) from error.__cause__
    return found


def _of_model(spec: RunSpec, error: InputError) -> InputError:
    """The error with the name of the model before it."""
    prefix = f"model {spec.model['name']!r}: "
    text = str(error)
    return InputError(text if text.startswith(prefix) else prefix + text, error.hint)


def _three(
    model: Callable[[int], nn.Module], width: int, base_width: int
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The model at its own width, at another one, and at the base width."""
    try:
        with torch.device("meta"):
            return model(width), model(2 * width), model(base_width)
    except InputError as error:
        if error.__cause__ is None:  # what the model itself refuses
            raise
    with torch.random.fork_rng(devices=[]):
        base = model(base_width)
        own = base if width == base_width else model(width)
        return own, base if width != base_width else model(2 * width), base


def _pass_forward(
    spec: RunSpec, data: Data, model: Callable[[int], nn.Module], found: list[Param]
) -> None:
    """`forward.check` on the meta device, else on the CPU at the narrower width."""
    try:
        with torch.device("meta"), torch.no_grad():
            forward.check(model(spec.width), found, data, examples(spec, data, 2)[0])
        return
    except InputError as error:
        if error.__cause__ is None:
            raise
    except Exception:  # no numbers there, or no kernel; a fault of the model shows again below
        pass
    narrow = min(spec.width, spec.base.get("width", spec.width))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            forward.check(model(narrow), found, data, examples(spec, data, 2)[0])
    except InputError:
        raise
    except Exception as error:
        what = f"its forward pass failed at width {narrow}"
        raise broken(what, error, "hptransfer validate checks a model on its own") from error


def params(
    model: nn.Module,
    wider: nn.Module,
    base: nn.Module,
    said: Mapping[str, str] | None = None,
    depth_m: float = 1.0,
    *,
    in_run: bool = True,
) -> list[Param]:
    """The parameters of a module; `wider` is it at another width, `base` at the base width.

    `said`: roles that need not be inferred, by default the module's own `roles()`. `in_run`: as in
    `refuse`.
    """
    roles: Callable[[], Mapping[str, str]] | None = getattr(model, "roles", None)
    own = roles() if roles is not None else {}
    kind_of = kinds(model, wider, own if said is None else said, in_run=in_run)
    base_shapes = {name: tuple(p.shape) for name, p in base.named_parameters()}
    described = []
    for name, p in model.named_parameters():
        if name not in kind_of:
            continue
        if name not in base_shapes:
            raise InputError(
                f"{name}: not in the model at the base width",
                "widths must share their parameters' names",
            )
        shapes = {"shape": tuple(p.shape), "base_shape": base_shapes[name]}
        described.append(Param(name, **shapes, **vars(kind_of[name]), depth_m=depth_m))
    return described


def placed(
    make: Callable[[], nn.Module], spec: RunSpec, seed: int, device: torch.device
) -> nn.Module:
    """The model on a device, built under a seed.

    What does not train, buffers and frozen parameters, keeps the values of the constructor. Of
    somebody's own model they are those that the CPU draws, whichever the device.
    """
    index = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=index), device:
        torch.manual_seed(seed)
        model = make()
    if device.type == "cpu" or not is_own(spec) or not _constants(model):
        return model
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(seed)
        drawn = _constants(make())
        for name, tensor in _constants(model).items():
            tensor.copy_(drawn[name])
    return model


def _constants(model: nn.Module) -> dict[str, Tensor]:
    """Buffers and frozen parameters by name."""
    frozen = {name: p.data for name, p in model.named_parameters() if not p.requires_grad}
    return {**dict(model.named_buffers()), **frozen}


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with real numbers of this dtype, in place; complex ones stay complex."""
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if p.is_floating_point():
                p.data = p.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))
    return model


def _depth_m(spec: RunSpec) -> float:
    """Depth over the base depth of CompleteP, where the model scales its residual branches."""
    base = spec.model.get("residual_base", 0)
    return spec.model["n_layer"] / base if base else 1.0
