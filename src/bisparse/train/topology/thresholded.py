"""The mask of trained thresholds, within what a pattern allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from bisparse.pattern import Pattern
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.bits import count
from bisparse.train.rules.dst import Dst
from bisparse.train.schedule import Schedule
from bisparse.train.thresholds.joining import forget_
from bisparse.train.topology.projection import Projection
from bisparse.train.topology.topology import Chosen, naming

__all__ = ["Thresholded"]


@dataclass(frozen=True)
class Thresholded(Projection):
    """E keeps what exceeds its threshold; of that, what a pattern allows and is worth most.

    The scores are max(|W| - t, 0): thresholds that differ between rows steer which row gives way in a full column.
    Removing entries never breaks "at most N": masks obey ``verify_mask(..., at_most=True)``.

    Attributes:
        thresholds: the rule that trains them.
        last: step at which masks change for the last time: what is above a target density is cut off then, and nothing
            is set back.
    """

    continuous: ClassVar[bool] = True
    at_most: ClassVar[bool] = True

    thresholds: Dst = field(default_factory=Dst)
    last: int | None = None

    def under(self, schedule: Schedule) -> Self:
        """Know the step from which masks are fixed."""
        return replace(self, last=schedule.freeze)

    def choose_all(
        self, weights: Sequence[MaskedWeight], patterns: Sequence[Pattern | None]
    ) -> Iterator[Chosen]:
        """Compare, set thresholds back where too little is left, adapt alpha, and solve where a pattern limits.

        Waits for the device once, to know how much is left.
        """
        rule = self.thresholds
        final = weights[0].steps == self.last
        if final:
            rule.cut_(weights)
        above = [rule.above(rule.saliency(weight)) for weight in weights]
        kept = torch.stack([torch.as_tensor(count(mask)) for mask in above]).tolist()
        if weights[0].steps:
            rule.adapt_(weights, sum(kept) / max(sum(mask.numel() for mask in above), 1))
        for weight, pattern, mask, number in zip(weights, patterns, above, kept, strict=True):
            back = weight.steps > 0 and not final and rule.set_back_(weight, number)
            with naming(weight):
                yield self._limited(weight, pattern, rule.above(rule.saliency(weight)) if back else mask)

    def _limited(self, weight: MaskedWeight, pattern: Pattern | None, above: Tensor) -> Chosen:
        if pattern is None or pattern.density == 1.0:
            return Chosen(None if pattern is None else above)
        scores = self.thresholds.saliency(weight).clamp_(min=0)
        allowed = self.solve(weight, scores, weight.mask, pattern, weight.layout)
        return Chosen(above if allowed.mask is None else allowed.mask & above, allowed.duals)

    def settle_(
        self,
        weight: MaskedWeight,
        old: Tensor,  # noqa: ARG002
        new: Tensor,  # noqa: ARG002
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        """Forget what the optimizer has gathered for thresholds that were set back in this step."""
        if optimizer is not None and int(weight.extra["reset_at"]) == weight.steps:
            forget_(optimizer, weight.learned["threshold"])
