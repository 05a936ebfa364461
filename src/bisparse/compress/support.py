"""Quadratic problems whose rows may only use the entries that a mask keeps."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["residual_on_support", "solve_on_support", "solve_on_support_pcg"]

_CHUNK_BYTES = 1 << 28
_CHOLESKY_COLUMNS = (
    1536  # above, a factorisation per row costs more than a few hundred products with the Hessian
)


def solve_on_support(hessian: Tensor, target: Tensor, mask: Tensor, start: Tensor | None = None) -> Tensor:
    """Minimise ½ w H wᵀ - t wᵀ for every row w over the entries that its mask keeps.

    Cost R (density D)³ / 3 per group by one Cholesky factorisation per row; conjugate gradients above
    1536 columns.

    Args:
        hessian: (G, D, D) float64, positive definite.
        target: (G, R, D).
        mask: (G, R, D) boolean.
        start: (G, R, D) first guess of the iterative method; zero without.

    Returns:
        (G, R, D), zero outside the mask; the residual on the mask is about 1e-10 of the target.
    """
    if target.shape[2] > _CHOLESKY_COLUMNS:
        return solve_on_support_pcg(hessian, target, mask, start)
    return torch.stack([_cholesky(h, t, m) for h, t, m in zip(hessian, target, mask, strict=True)])


def _cholesky(hessian: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """One group: (D, D), (R, D), (R, D) -> (R, D)."""
    result = torch.zeros_like(target)
    width = int(mask.sum(1).max()) if mask.numel() else 0
    if width == 0:
        return result
    kept = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[
        :, :width
    ]  # rows' kept columns first
    real = mask.gather(1, kept)
    step = max(1, _CHUNK_BYTES // (8 * width * width))
    for first in range(0, mask.shape[0], step):
        columns, used = kept[first : first + step], real[first : first + step]
        system = hessian[columns[:, :, None], columns[:, None, :]]
        system = system * (used[:, :, None] & used[:, None, :])
        system = system + torch.diag_embed((~used).to(system))
        right = target[first : first + step].gather(1, columns) * used
        found = torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(system)).squeeze(2)
        result[first : first + step].scatter_(1, columns, found * used)
    return result


def solve_on_support_pcg(
    hessian: Tensor,
    target: Tensor,
    mask: Tensor,
    start: Tensor | None = None,
    *,
    tolerance: float = 1e-9,
    rounds: int = 1000,
) -> Tensor:
    """The same by conjugate gradients for all rows together, preconditioned by the Hessian's diagonal.

    Cost R D² per group and round. Stops when every row's residual is below ``tolerance`` of its target.
    """
    keep = mask.to(target)
    scale = hessian.diagonal(dim1=-2, dim2=-1)[:, None, :].reciprocal()
    solution = torch.zeros_like(target) if start is None else start * keep
    residual = (target - solution @ hessian) * keep
    direction = residual * scale
    power = (residual * direction).sum(2, keepdim=True)
    goal = (tolerance * (target * keep).norm(dim=2, keepdim=True)).clamp_min(1e-300)
    for _ in range(rounds):
        if bool((residual.norm(dim=2, keepdim=True) <= goal).all()):
            break
        image = (direction @ hessian) * keep
        length = power / (direction * image).sum(2, keepdim=True).clamp_min(1e-300)
        solution = solution + length * direction
        residual = residual - length * image
        scaled = residual * scale
        previous, power = power, (residual * scaled).sum(2, keepdim=True)
        direction = scaled + power / previous.clamp_min(1e-300) * direction
    return solution


def residual_on_support(hessian: Tensor, target: Tensor, rows: Tensor, mask: Tensor) -> float:
    """Largest violation of the normal equations, relative to the target: 0 at the minimiser."""
    violation = ((target - rows @ hessian) * mask).abs().max()
    return float(violation / target.abs().max().clamp_min(1e-300))
