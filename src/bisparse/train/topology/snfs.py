"""Sparse networks from scratch (sparse momentum)."""

from __future__ import annotations

from dataclasses import dataclass, field

from bisparse.train.topology.evolve import Evolve
from bisparse.train.topology.fraction import Fraction
from bisparse.train.topology.grow import Grow, Momentum
from bisparse.train.topology.redistribution import REDISTRIBUTIONS, Redistribution

__all__ = ["Snfs"]


@dataclass(frozen=True, kw_only=True)
class Snfs(Evolve):
    """The smallest magnitudes go; new weights come where the averaged gradient is largest, in layers by its mean.

    Source: Dettmers and Zettlemoyer 2019 (arXiv 1907.04840): after every epoch, fraction 0.2 falling along a cosine.
    """

    grow: Grow = field(default_factory=Momentum)
    redistribute: Redistribution | None = REDISTRIBUTIONS["momentum"]
    fraction: Fraction = field(default_factory=lambda: Fraction(0.2, "cosine"))
