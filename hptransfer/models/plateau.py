"""plateau: an objective with a known gradient, on which batched Scion meets its worst-case rate."""

import math

import torch
from torch import Tensor, nn

REVISION = {"plateau": 1}


class Plateau(nn.Module):
    """F(X) + <N, X> for noise N; the parameter `x` holds X.

    Diagonal mode: X has `width` coordinates x_i = <P_i Q_i^T, X>, kept as (width, 1): half of them
    slopes, half walls. Matrix mode: X is (width, columns), slopes on the diagonal, walls beside it.

    - slope: phi'(x) = (2 eps / n) S(clip(x/h, 0, 1)) with n slopes, S(z) = 2 z^2 up to 1/2 and
      1 - 2 (1-z)^2 above, h = sqrt(8 eps / L2); it starts at Delta/(2 eps) + h/2.
    - wall: w'(x) = (L x + L2 (m |x| - m^2 / 2)) / r with m = min(|x|, L/(2 L2)); it starts at 0. In
      matrix mode L x / r.

    So F(X_0) - inf F = Delta, and the nuclear norm of the first gradient is 2 eps. F depends on
    eps, as in lower bounds. L: `smoothness`, L2: `hessian`, Delta: `gap`. The objective is ours.
    """

    def __init__(
        self, width: int, columns: int, eps: float, gap: float, smoothness: float, hessian: float
    ) -> None:
        super().__init__()
        self.width, self.columns = width, columns
        self.eps, self.gap, self.smoothness, self.hessian = eps, gap, smoothness, hessian
        self.run_up = math.sqrt(8 * eps / hessian)
        self.x = nn.Parameter(self.start())

    @property
    def n_slopes(self) -> int:
        """Number of slopes."""
        return self.width if self.columns else self.width // 2

    def roles(self) -> dict[str, str]:
        return {"x": "hidden"}

    def start(self) -> Tensor:
        """X_0, float64."""
        x = torch.zeros(self.width, self.columns or 1, dtype=torch.float64)
        top = self.gap / (2 * self.eps) + self.run_up / 2
        if self.columns:
            x.diagonal().fill_(top)
        else:
            x[: self.n_slopes] = top
        return x

    def forward(self, noise: Tensor) -> Tensor:
        """F(X) + <noise, X>; noise of the shape of X, the result without axes."""
        return self.objective(self.x) + (noise * self.x).sum((-2, -1))

    def objective(self, x: Tensor) -> Tensor:
        """F of (..., *shape of X) -> (...)."""
        slopes, walls = self._parts(x)
        z = (slopes / self.run_up).clamp(0, 1)
        below = 2 / 3 * z**3
        above = z - 0.5 + 2 / 3 * (1 - z) ** 3
        rise = torch.where(z < 0.5, below, above) + (slopes / self.run_up - 1).clamp(min=0)
        total = 2 * self.eps / self.n_slopes * self.run_up * rise.sum(-1)
        u = walls.abs()
        wall = self.smoothness * u**2 / 2
        if not self.columns:
            c = self.smoothness / (2 * self.hessian)
            near = u.clamp(max=c) ** 3 / 6
            far = torch.where(u > c, c * (u**2 - c**2) / 2 - c**2 / 2 * (u - c), 0.0)
            wall = wall + self.hessian * walls.sign() * (near + far)
        return total + wall.sum(-1) / self.width

    def gradient(self, x: Tensor) -> Tensor:
        """grad F of (..., *shape of X), in closed form."""
        slopes, walls = self._parts(x)
        z = (slopes / self.run_up).clamp(0, 1)
        s = torch.where(z < 0.5, 2 * z**2, 1 - 2 * (1 - z) ** 2)
        slope = 2 * self.eps / self.n_slopes * s
        wall = self.smoothness * walls
        if not self.columns:
            u = walls.abs()
            m = u.clamp(max=self.smoothness / (2 * self.hessian))
            wall = wall + self.hessian * (m * u - m**2 / 2)
        return self._joined(x, slope, wall / self.width)

    def dual(self, x: Tensor) -> Tensor:
        """Nuclear norm of grad F at (..., *shape of X) -> (...)."""
        return self.dual_of(self.gradient(x))

    def dual_of(self, g: Tensor) -> Tensor:
        """Nuclear norm of a gradient, (..., *shape of X) -> (...)."""
        if not self.columns:
            return g.abs().sum((-2, -1))
        return torch.linalg.eigvalsh(g @ g.mT).clamp(min=0).sqrt().sum(-1)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of slopes and of walls, (..., n) each."""
        if not self.columns:
            flat = x.flatten(-2)
            return flat[..., : self.n_slopes], flat[..., self.n_slopes :]
        slopes = x.diagonal(dim1=-2, dim2=-1)
        return slopes, (x - torch.diag_embed(slopes, dim1=-2, dim2=-1) @ self._eye(x)).flatten(-2)

    def _joined(self, x: Tensor, slope: Tensor, wall: Tensor) -> Tensor:
        """The inverse of `_parts`."""
        if not self.columns:
            return torch.cat([slope, wall], -1).unsqueeze(-1)
        beside = wall.unflatten(-1, (self.width, self.columns))
        return beside + torch.diag_embed(slope, dim1=-2, dim2=-1) @ self._eye(x)

    def _eye(self, x: Tensor) -> Tensor:
        """(width, columns) with ones on the diagonal."""
        return torch.eye(self.width, self.columns, dtype=x.dtype, device=x.device)


def plateau(
    width: int,
    *,
    columns: int = 0,
    eps: float = 1.0,
    gap: float = 100.0,
    smoothness: float = 1.0,
    hessian: float = 0.0625,
) -> Plateau:
    """An objective of width directions: slopes of height eps, and walls of curvature L.

    columns: 0 for the diagonal mode. Forward: noise of the shape of X -> F(X) + <noise, X>.
    """
    return Plateau(width, columns, eps, gap, smoothness, hessian)
