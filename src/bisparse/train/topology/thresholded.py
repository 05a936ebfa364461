"""The mask of trained thresholds, within what a pattern allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bisparse.pattern import Pattern
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.rules.dst import Dst
from bisparse.train.topology.projection import Projection
from bisparse.train.topology.topology import Chosen

__all__ = ["Thresholded"]


@dataclass(frozen=True)
class Thresholded(Projection):
    """E keeps what exceeds its threshold; of that, what a pattern allows and is worth most.

    The scores are max(|W| - t, 0): thresholds that differ between rows steer which row gives way in a full column.
    Removing entries never breaks "at most N": masks obey ``verify_mask(..., at_most=True)``.

    Attributes:
        thresholds: the rule that trains them.
    """

    continuous: ClassVar[bool] = True
    at_most: ClassVar[bool] = True

    thresholds: Dst = field(default_factory=Dst)

    def choose(self, weight: MaskedWeight, pattern: Pattern | None) -> Chosen:
        """Compare, then solve where the pattern limits the density."""
        if pattern is None:
            return Chosen(None)
        saliency = self.thresholds.saliency(weight)
        above = self.thresholds.above(saliency)
        if pattern.density == 1.0:
            return Chosen(above)
        allowed = self.solve(weight, saliency.clamp_(min=0), weight.mask, pattern, weight.layout)
        return Chosen(above if allowed.mask is None else allowed.mask & above, allowed.duals)
