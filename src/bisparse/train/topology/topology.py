"""What a topology is: which entries a weight keeps after a refresh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.masks.result import Duals
from bisparse.pattern import Pattern
from bisparse.train.masked_weight import MaskedWeight

__all__ = ["Chosen", "Topology"]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A new mask of one weight (this process's part).

    Attributes:
        mask: boolean, shaped like ``weight.values``; ``None`` = all ones.
        duals: potentials, from which the next solve starts.
        forced: changed entries that the column constraint decided; ``None`` where there is no such thing.
    """

    mask: Tensor | None
    duals: Duals | None = None
    forced: float | None = None


class Topology:
    """Chooses masks. Override ``choose``, and ``settle_`` where a change touches more than the mask."""

    def look_(self, weight: MaskedWeight, *, due: bool) -> None:
        """Called before every optimizer step, while the gradient is as it came, before the rule changes it.

        Args:
            weight: with a gradient.
            due: masks are chosen after this step.
        """

    def observe_(self, weight: MaskedWeight) -> None:
        """Called after every optimizer step, while the parameter holds W."""

    def choose(self, weight: MaskedWeight, pattern: Pattern | None) -> Chosen:
        """Choose a mask.

        Args:
            weight: its parameter holds W; its gradient is that of the last step, where it has one.
            pattern: what the mask has to obey now; ``None`` = keep everything.
        """
        raise NotImplementedError

    def settle_(
        self, weight: MaskedWeight, old: Tensor, new: Tensor, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Called after a change while the parameter still holds W: new values, optimizer state."""
