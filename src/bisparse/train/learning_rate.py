"""How the learning rate changes: a function of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["LearningRate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRate:
    """A factor on the optimizer's learning rate.

    Attributes:
        shape: ``constant``; ``cosine`` and ``linear`` fall from 1 to ``floor``; ``step`` is multiplied by
            ``gamma`` at every milestone.
        warmup: steps, from 0 to 1 in a straight line.
        floor: the last factor of ``cosine`` and ``linear``.
        milestones: steps at which ``step`` falls.
        gamma: of ``step``.

    Raises:
        ValueError: a negative warm-up or a floor outside [0, 1].
    """

    shape: Literal["constant", "cosine", "linear", "step"] = "cosine"
    warmup: int = 0
    floor: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup={self.warmup}: must not be negative")
        if not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"floor={self.floor}: must lie between 0 and 1")

    def factor(self, step: int, total: int) -> float:
        """The factor at a step from 0 of so many."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.shape == "step":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        share = (step - self.warmup) / max(total - self.warmup, 1)
        if self.shape == "cosine":
            return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * share))
        return self.floor + (1.0 - self.floor) * (1.0 - share) if self.shape == "linear" else 1.0
