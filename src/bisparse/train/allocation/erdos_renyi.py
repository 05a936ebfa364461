"""Erdos-Renyi densities: small layers are denser than large ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bisparse.pattern import Unstructured
from bisparse.train.allocation.allocation import Allocation
from bisparse.weights import Weight, as_matrices

__all__ = ["ErdosRenyi"]


@dataclass(frozen=True)
class ErdosRenyi(Allocation):
    """Layer l keeps the share min(1, eps * raw_l), with raw_l = (sum of its dimensions / their product)**power.

    ``eps`` follows from the density of the pattern: layers that would be more than full are dense, and the others
    are solved for again. Or it is given, as in SET: a layer of n inputs and m outputs then keeps
    min(n * m, eps * (n + m)) weights.

    Attributes:
        kernel: count a convolution's kernel among its dimensions (ERK); otherwise channels alone (ER).
        eps: of SET (20 there); ``None`` = from the pattern, which otherwise has to be ``unstructured:0``.
        power: of the raw density.

    Raises:
        ValueError: ``eps`` or ``power`` is not positive.

    Source: Mocanu et al. 2018 (ER); Evci et al. 2020, RigL (arXiv 1911.11134, ERK).
    """

    kernel: bool = True
    eps: float | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.eps is not None and not self.eps > 0.0:
            raise ValueError(f"eps={self.eps}: must be positive")
        if not self.power > 0.0:
            raise ValueError(f"power={self.power}: must be positive")

    def densities(self, weights: Sequence[Weight], total: int) -> list[float]:
        """min(1, eps * raw) for every layer."""
        raw = [self._raw(weight) for weight in weights]
        sizes = [weight.parameter.numel() for weight in weights]
        eps = _solved(raw, sizes, total) if self.eps is None else self.eps
        return [min(1.0, eps * value) for value in raw]

    def total(self, weights: Sequence[Weight], patterns: Sequence[Unstructured]) -> int:
        """From ``eps``, or from the patterns.

        Raises:
            ValueError: both say how many.
        """
        if self.eps is None:
            return super().total(weights, patterns)
        given = next((pattern for pattern in patterns if pattern.sparsity), None)
        if given is not None:
            raise ValueError(
                f"eps={self.eps} and {given} both say how many weights stay: write unstructured:0 with eps"
            )
        kept = (weight.parameter.numel() * min(1.0, self.eps * self._raw(weight)) for weight in weights)
        return round(math.fsum(kept))

    def _raw(self, weight: Weight) -> float:
        shape = tuple(weight.parameter.shape)
        rows, columns = as_matrices(torch.empty(shape, device="meta"), weight.layout).shape[1:]
        spatial = shape[2:] if self.kernel and weight.layout.kind in ("conv", "conv_transpose") else ()
        dimensions = (rows, columns, *spatial)
        return float((sum(dimensions) / math.prod(dimensions)) ** self.power)


def _solved(raw: Sequence[float], sizes: Sequence[int], total: int) -> float:
    """The eps at which sum(size * min(1, eps * raw)) is ``total``."""
    full = [False] * len(raw)
    while True:
        left = total - sum(size for size, f in zip(sizes, full, strict=True) if f)
        mass = math.fsum(size * value for size, value, f in zip(sizes, raw, full, strict=True) if not f)
        if mass <= 0.0:
            return 1.0 / min(raw)
        eps = left / mass
        over = [f or eps * value > 1.0 for value, f in zip(raw, full, strict=True)]
        if over == full:
            return eps
        full = over
