"""Sparse evolutionary training."""

from __future__ import annotations

from dataclasses import dataclass, field

from bisparse.train.topology.drop import Drop, TwoSided
from bisparse.train.topology.evolve import Evolve
from bisparse.train.topology.newborn import Newborn

__all__ = ["Set"]


@dataclass(frozen=True, kw_only=True)
class Set(Evolve):
    """The positive and the negative weights nearest to zero go, new ones come at random, N(0, 0.1**2).

    Source: Mocanu et al. 2018, Nature Communications 9, 2383: after every epoch but the last, fraction 0.3.
    """

    drop: Drop = field(default_factory=TwoSided)
    newborn: Newborn = field(default_factory=lambda: Newborn("normal"))
