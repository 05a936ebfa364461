"""What a rule is: how gradients reach masked weights, and what the forward pass sees of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from bisparse.train.masked_weight import MaskedWeight, hide_, reveal_

if TYPE_CHECKING:
    from bisparse.train.topology.topology import Topology

__all__ = ["Rule", "Update", "shrink_"]


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One optimizer step of some weights, right before it happens.

    The parameters hold W (revealed); gradients are those at what the forward pass saw.

    Attributes:
        weights: of one parameter group, each with a gradient.
        learning_rate: of the group.
        weight_decay: of the group.
        maximize: the optimizer climbs: gradients count with the opposite sign.
        scale: factor that the gradients still carry (a fused optimizer under a ``GradScaler`` divides by it
            itself); ``None`` = 1.
        frozen: masks stay as they are after this step.
        again: a closure was evaluated before in this step: what a rule does to W itself is done.
    """

    weights: Sequence[MaskedWeight]
    learning_rate: float | Tensor
    weight_decay: float = 0.0
    maximize: bool = False
    scale: Tensor | None = None
    frozen: bool = False
    again: bool = False

    @property
    def values(self) -> list[Tensor]:
        """W of every weight."""
        return [w.values for w in self.weights]

    @property
    def gradients(self) -> list[Tensor]:
        """Gradients of every weight; changing them in place changes what the optimizer sees."""
        return [g for w in self.weights if (g := w.gradient) is not None]

    @property
    def hidden(self) -> list[Tensor]:
        """(1-E)*W of every weight."""
        return [w.hidden for w in self.weights]

    @property
    def dropped(self) -> list[Tensor]:
        """1-E of every weight."""
        return [w.dropped for w in self.weights]


class Rule:
    """Base of all rules: the straight-through estimator on W*E. Override what differs.

    Rules have no state of their own; what belongs to a weight lives in :class:`MaskedWeight`, and what is trained
    along with it in its ``learned``. A rule acts after gradients are reduced, unscaled and clipped, once for each
    optimizer step.

    Attributes:
        hides_all: ``hidden`` holds all of W, not only what is dropped.
    """

    hides_all: ClassVar[bool] = False

    def topology(self, chosen: Topology) -> Topology:
        """The topology that goes with the rule.

        Args:
            chosen: what the user has asked for, or the default.

        Raises:
            ValueError: the two do not go together.
        """
        return chosen

    def begin_(self, weight: MaskedWeight) -> None:
        """Called once for each weight, before its first mask is chosen.

        Raises:
            ValueError: the rule cannot work with the weight.
        """

    def join(self, optimizer: Any, groups: Mapping[int, Sequence[MaskedWeight]], *, explicit: bool) -> None:
        """Add to an optimizer what is trained along with weights; called when it is attached.

        Args:
            optimizer: that trains the weights.
            groups: weights by index of their parameter group.
            explicit: it calls no hooks.

        Raises:
            ValueError: the rule does not work with such an optimizer.
        """

    def check(self, weight: MaskedWeight) -> None:
        """Raise where the rule cannot work with a weight; its first mask is chosen.

        Raises:
            ValueError: naming the weight and the remedy.
        """

    def apply_(self, update: Update) -> None:
        """Change gradients (or W) in place, right before the optimizer's own update."""

    def catch_up_(self, update: Update) -> None:
        """The explicit form: the optimizer has run on W*E; make W of what it left.

        What it could not see is decayed as weight decay would have done, then added to the parameter.
        """
        shrink_(update.hidden, update.learning_rate, update.weight_decay)
        self.reveal_(update.weights)

    def measure(self, weights: Sequence[MaskedWeight]) -> dict[str, float]:  # noqa: ARG002
        """Figures of some weights, by name, for :meth:`bisparse.Sparsifier.metrics`."""
        return {}

    def reveal_(self, weights: Sequence[MaskedWeight]) -> None:
        """What the forward pass sees becomes W."""
        reveal_(weights)

    def hide_(self, weights: Sequence[MaskedWeight]) -> None:
        """W becomes what the forward pass is to see."""
        hide_(weights)


def shrink_(tensors: Sequence[Tensor], learning_rate: float | Tensor, decay: float) -> None:
    """Multiply by 1 - learning_rate * decay, in place."""
    if decay:
        torch._foreach_mul_(list(tensors), 1.0 - float(learning_rate) * decay)
