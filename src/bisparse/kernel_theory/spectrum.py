"""Numbers of one kernel matrix: rank, dimensions, alignment, and what it can and cannot represent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Spectrum", "alignment", "centred", "cka", "spectrum"]


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues and eigenvectors of a symmetric positive semidefinite kernel matrix.

    Attributes:
        values: (n,), from the largest down; rounding noise below zero is zero.
        vectors: (n, n), columns in the same order.
        rtol: values up to ``rtol`` times the largest count as zero.
    """

    values: Tensor
    vectors: Tensor
    rtol: float

    @property
    def rank(self) -> int:
        """Eigenvalues that are not zero."""
        return int((self.values > self.rtol * self._largest).sum())

    @property
    def trace(self) -> float:
        """Sum of the eigenvalues."""
        return float(self.values.sum())

    @property
    def stable_rank(self) -> float:
        """Trace over largest eigenvalue, between 1 and the rank; 0 for the zero matrix."""
        return self.trace / self._largest if self._largest > 0 else 0.0

    @property
    def decay(self) -> float:
        """Slope of log eigenvalue against log index over the non-zero ones; NaN for fewer than two."""
        values = self.values[: self.rank].double().log()
        if len(values) < 2:
            return math.nan
        index = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device).log()
        index = index - index.mean()
        return float((index * (values - values.mean())).sum() / index.square().sum())

    def effective_dimension(self, ridge: float) -> float:
        """Trace of K (K + ridge)⁻¹: directions that a ridge regression really uses; the rank for ridge 0."""
        if ridge <= 0:
            return float(self.rank)
        return float((self.values / (self.values + ridge)).sum())

    def project(self, y: Tensor) -> Tensor:
        """Orthogonal projection of (n, ...) onto the range."""
        basis = self.vectors[:, : self.rank]
        return basis @ (basis.T @ y)

    def inside(self, y: Tensor) -> float:
        """Share of the squared norm of y in the range; the rest can never be fitted. 1 for y = 0."""
        total = float(y.square().sum())
        return min(1.0, float(self.project(y).square().sum()) / total) if total > 0 else 1.0

    def solve(self, y: Tensor, ridge: float = 0.0) -> Tensor:
        """(K + ridge)⁻¹ y; the pseudo-inverse for ridge 0."""
        if ridge > 0:
            scale = 1.0 / (self.values + ridge)
            return self.vectors @ (scale[:, None] * (self.vectors.T @ y))
        basis = self.vectors[:, : self.rank]
        return basis @ ((basis.T @ y) / self.values[: self.rank, None])

    @property
    def _largest(self) -> float:
        return float(self.values[0]) if len(self.values) else 0.0


def spectrum(kernel: Tensor, rtol: float | None = None) -> Spectrum:
    """Decompose a kernel matrix; cost n³.

    Args:
        kernel: (n, n), symmetric positive semidefinite.
        rtol: what counts as zero, relative to the largest eigenvalue; ``None`` = 10 n times the dtype's precision.

    Raises:
        ValueError: not square, not symmetric, or not finite.
    """
    if kernel.dim() != 2 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"a kernel matrix is square, got {tuple(kernel.shape)}")
    if kernel.dtype in (torch.float16, torch.bfloat16):
        kernel = kernel.float()
    if not bool(torch.isfinite(kernel).all()):
        raise ValueError("the kernel contains NaN or infinity: are the model's weights finite?")
    precision = torch.finfo(kernel.dtype).eps
    if not torch.allclose(kernel, kernel.T, rtol=0.0, atol=100 * precision * float(kernel.abs().max())):
        raise ValueError("the kernel is not symmetric: take the same inputs for rows and columns")
    values, vectors = torch.linalg.eigh(kernel)
    return Spectrum(
        values.flip(0).clamp_min(0.0), vectors.flip(1), 10 * len(kernel) * precision if rtol is None else rtol
    )


def centred(kernel: Tensor) -> Tensor:
    """The kernel of features with their mean over the examples removed."""
    rows = kernel - kernel.mean(0, keepdim=True)
    return rows - rows.mean(1, keepdim=True)


def cka(first: Tensor, second: Tensor) -> float:
    """Centred kernel alignment of two kernels on the same examples, 0 to 1; 0 where one is constant.

    Source: Cortes, Mohri and Rostamizadeh 2012; Kornblith et al. 2019.
    """
    a, b = centred(first), centred(second)
    scale = float(a.norm() * b.norm())
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def alignment(kernel: Tensor, y: Tensor) -> float:
    """Centred alignment of a kernel (n, n) with targets (n,) or (n, C): its CKA with y yᵀ."""
    targets = y.reshape(len(y), -1)
    return cka(kernel, targets @ targets.T)
