"""What stands for the derivative of a step function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LongTail"]


@dataclass(frozen=True, slots=True)
class LongTail:
    """H(x): falls in a straight line from ``peak`` at 0 to ``tail`` at ``knee``, stays there, and is 0 beyond ``cut``.

    The integral is ``knee * (peak + tail) + 2 * (cut - knee) * tail``: 1.44 with the paper's numbers, not 1, so that
    structure gradients are 44% larger than those of a smoothed step would be.

    Attributes:
        peak: H(0).
        knee: where the slope ends.
        tail: from there on.
        cut: beyond it an entry learns nothing from its distance to the threshold.

    Raises:
        ValueError: not 0 < ``knee`` <= ``cut``, or not 0 <= ``tail`` <= ``peak``.

    Source: Liu et al. 2020 (arXiv 2005.06870), equation 3, after Xu and Cheung 2019.
    """

    peak: float = 2.0
    knee: float = 0.4
    tail: float = 0.4
    cut: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 < self.knee <= self.cut and 0.0 <= self.tail <= self.peak):
            raise ValueError(f"{self}: an estimator needs 0 < knee <= cut and 0 <= tail <= peak")

    def __call__(self, distance: Tensor) -> Tensor:
        """H of every entry; a new tensor."""
        away = distance.abs()
        inside = torch.le(
            away, self.cut, out=torch.empty_like(away)
        )  # numbers: a product of mixed types is slow
        slope = (self.peak - self.tail) / self.knee
        return torch.rsub(away, self.peak, alpha=slope).clamp_(min=self.tail).mul_(inside)

    @property
    def integral(self) -> float:
        """Over all distances."""
        return self.knee * (self.peak + self.tail) + 2.0 * (self.cut - self.knee) * self.tail
