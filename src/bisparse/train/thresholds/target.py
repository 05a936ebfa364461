"""A penalty that is adapted until a requested share of the weights is left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bisparse.train.schedule import Ramp

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """alpha * (share that is left / share that is wanted) ** ``gain``.

    A controller that reacts to the ratio and keeps no sum of past errors: such a sum would go on pushing long after
    the share is reached (thresholds rise at once, but fall only as far as the loss asks for it). A remaining error e
    (in logarithms) means that the network holds against ``exp(gain * e)`` times alpha.

    Attributes:
        density: share that is wanted, of all weights of one optimizer together.
        ramp: on the way there, along a curve; ``None`` = at once.
        gain: exponent.
        limit: alpha is changed by at most this factor, up or down; without a limit, thresholds would rush past
            everything where the share that is left is far from what is wanted.

    Raises:
        ValueError: ``density`` outside (0, 1), ``gain`` not positive, or ``limit`` not above 1.
    """

    density: float
    ramp: Ramp | None = None
    gain: float = 10.0
    limit: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 < self.density < 1.0:
            raise ValueError(f"density={self.density}: a share of kept weights strictly between 0 and 1")
        if not self.gain > 0.0:
            raise ValueError(f"gain={self.gain}: must be positive")
        if not self.limit > 1.0:
            raise ValueError(f"limit={self.limit}: must be above 1")

    def at(self, step: int) -> float:
        """Share that is wanted after a step."""
        return self.density if self.ramp is None else self.ramp.at(self.density, step)

    def factor(self, density: float, step: int) -> float:
        """By what alpha is multiplied where this share is left after a step."""
        error = math.log(max(density, 1e-12) / self.at(step))
        largest = math.log(self.limit)
        return math.exp(min(max(self.gain * error, -largest), largest))
