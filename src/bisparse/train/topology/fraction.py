"""What share of the kept weights is exchanged at a refresh, as training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["Fraction"]


@dataclass(frozen=True, slots=True)
class Fraction:
    """The share of kept weights that a refresh drops, as a function of the step.

    With s the progress ``step / end``, between 0 and 1:

    - ``constant``: ``start``;
    - ``cosine``: ``floor + (start - floor) * (1 + cos(pi * s)) / 2``, RigL's course;
    - ``linear``: ``floor + (start - floor) * (1 - s)``.

    Attributes:
        start: the share at step 0.
        shape: of its course.
        floor: the share at ``end`` and later.
        end: step at which the course ends; ``None`` = the schedule's ``freeze``.

    Raises:
        ValueError: a share outside [0, 1], a floor above the start, an end before step 1, an unknown shape.
    """

    start: float = 0.3
    shape: Literal["constant", "cosine", "linear"] = "constant"
    floor: float = 0.0
    end: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor <= self.start <= 1.0:
            raise ValueError(
                f"start={self.start}, floor={self.floor}: shares of weights, 0 <= floor <= start <= 1"
            )
        if self.shape not in ("constant", "cosine", "linear"):
            raise ValueError(f"shape={self.shape!r}: choose constant, cosine or linear")
        if self.end is not None and self.end < 1:
            raise ValueError(f"end={self.end}: the course ends at step 1 or later")

    def at(self, step: int) -> float:
        """The share at a step.

        Raises:
            ValueError: the course has no end.
        """
        if self.shape == "constant":
            return self.start
        if self.end is None:
            raise ValueError(
                f"a {self.shape} share needs an end: Schedule(freeze=STEP), or Fraction(end=STEP)"
            )
        progress = min(step / self.end, 1.0)
        left = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.shape == "cosine" else 1.0 - progress
        return self.floor + (self.start - self.floor) * left
