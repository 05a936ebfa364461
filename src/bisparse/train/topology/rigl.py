"""The rigged lottery: SET with another grow score."""

from __future__ import annotations

from dataclasses import dataclass, field

from bisparse.train.topology.evolve import Evolve
from bisparse.train.topology.fraction import Fraction
from bisparse.train.topology.grow import Gradient, Grow

__all__ = ["RigL"]


@dataclass(frozen=True, kw_only=True)
class RigL(Evolve):
    """The smallest magnitudes go, new weights come where the dense gradient is largest, and start at 0.

    Source: Evci et al. 2020 (arXiv 1911.11134): every 100 steps for three quarters of training, fraction 0.3 falling
    along a cosine to 0.
    """

    grow: Grow = field(default_factory=Gradient)
    fraction: Fraction = field(default_factory=lambda: Fraction(0.3, "cosine"))
