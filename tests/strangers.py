"""Torch optimizers with one habit each, as a file of somebody else's."""

OWN = '''
import math
import torch
from torch.optim import SGD


class Strict(SGD):
    """It asks for train mode, and is evaluated a shift away."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.training = False

    @torch.no_grad()
    def shifted(self, size):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(size)

    def step(self, closure=None):
        assert self.training, "not in train mode"
        super().step()

    def train(self):
        if not self.training and self.state:
            self.shifted(-0.5)
        self.training = True

    def eval(self):
        self.shifted(0.5)
        self.training = False


class Replaces(SGD):
    """A new tensor at every step, where others write into the old one."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data - group["lr"] * p.grad


class Noisy(SGD):
    """Its steps are noise from torch's own generator."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.randn_like(p), alpha=group["lr"])


class Inherits(SGD):
    """No __init__ of its own."""


class Twice(SGD):
    """The gradient is taken again at a point ahead."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        assert closure is not None
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad, alpha=0.01)
        ahead = [p.grad.clone() for p in self.param_groups[0]["params"]]
        closure()
        with torch.no_grad():
            for p, g in zip(self.param_groups[0]["params"], ahead):
                p.sub_(g, alpha=0.01)
        super().step()


class Endless(SGD):
    """Its step does not end."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        while True:
            pass


class Deaf(SGD):
    """It has a step of its own, whatever the learning rate."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.01
        super().step()


class Decomposes(SGD):
    """It raises on a NaN, as decompositions do."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                torch.linalg.eigh(p.grad @ p.grad.T)
        super().step()


class Counts(SGD):
    """Its state holds an object that only an unrestricted pickle could give back."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr, momentum=0.9)
        self.param_groups[0]["kind"] = Kind()


class Kind:
    pass


def two(model, lr, *, factor: float = 0.5):
    """Matrices under one optimizer, the rest under another with a lower lr."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim < 2]
    rest.append(wide.pop())
    return [SGD(wide, lr=lr), SGD(rest, lr=lr * factor)]


def forgets(model, lr):
    """It leaves out the last parameter."""
    return SGD(list(model.parameters())[:-1], lr=lr)


def nothing(model, lr):
    """It returns no optimizer."""


def closures(model, lr):
    """Two that take closures."""
    first, *rest = model.parameters()
    return [Twice([first], lr=lr), Twice(rest, lr=lr)]


def asks_for_more(model, lr):
    """It needs a package."""
    import no_such_package
'''
