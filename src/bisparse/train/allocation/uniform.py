"""The same density everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bisparse.train.allocation.allocation import Allocation
from bisparse.weights import Weight

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform(Allocation):
    """Every layer keeps the same share. (The literature leaves the first layer dense: see ``ignore``.)"""

    def densities(self, weights: Sequence[Weight], total: int) -> list[float]:
        """Total / all weights."""
        return [total / sum(weight.parameter.numel() for weight in weights)] * len(weights)
