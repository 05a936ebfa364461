"""Sparse from the start, and never changed."""

from __future__ import annotations

from dataclasses import dataclass

from bisparse.pattern import Pattern
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.topology.evolve import Evolve
from bisparse.train.topology.topology import Chosen

__all__ = ["Static"]


@dataclass(frozen=True, kw_only=True)
class Static(Evolve):
    """The first masks, at random or by magnitude, stay: the baseline of every evolving topology."""

    def choose(self, weight: MaskedWeight, pattern: Pattern | None) -> Chosen:
        """The first mask, or the same again."""
        if weight.refreshes and pattern is not None:
            return Chosen(weight.mask.clone())
        return super().choose(weight, pattern)
