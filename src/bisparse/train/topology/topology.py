"""What a topology is: which entries a weight keeps after a refresh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from bisparse.masks.result import Duals
from bisparse.pattern import Pattern
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.rules import Rule
from bisparse.train.schedule import Schedule

__all__ = ["Chosen", "Topology", "naming"]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A new mask of one weight (this process's part).

    Attributes:
        mask: boolean, shaped like ``weight.values``; ``None`` = all ones.
        duals: potentials, from which the next solve starts.
        forced: changed entries that the column constraint decided; ``None`` where there is no such thing.
        pattern: what the weight obeys from now on, where that changes with this mask.
    """

    mask: Tensor | None
    duals: Duals | None = None
    forced: float | None = None
    pattern: Pattern | None = None


class Topology:
    """Chooses masks. Override ``choose``, and ``settle_`` where a change touches more than the mask.

    Attributes:
        rule: name of the rule that goes with it where none is asked for.
        continuous: masks follow the weights after every step; the schedule says when changes are measured.
        at_most: patterns are upper limits.
    """

    rule: ClassVar[str] = "sr-ste"
    continuous: ClassVar[bool] = False
    at_most: ClassVar[bool] = False

    def under(self, schedule: Schedule) -> Self:  # noqa: ARG002
        """This topology, with what it leaves open taken from the schedule.

        Args:
            schedule: when masks change.
        """
        return self

    def check(self, weight: MaskedWeight, rule: Rule) -> None:
        """Raise where it cannot work with a weight or a rule; called before the first mask is chosen.

        Raises:
            ValueError: naming the weight or the rule, and the remedy.
        """

    def look_(self, weight: MaskedWeight, *, due: bool, scale: Tensor | None = None) -> None:
        """Called before every step until masks stay, while the gradient is as it came, before the rule changes it.

        Args:
            weight: with a gradient.
            due: masks are chosen after this step.
            scale: factor that the gradient still carries (of a ``GradScaler``); ``None`` = 1.
        """

    def observe_(self, weight: MaskedWeight) -> None:
        """Called after every optimizer step, while the parameter holds W."""

    def choose_all(
        self, weights: Sequence[MaskedWeight], patterns: Sequence[Pattern | None]
    ) -> Iterator[Chosen]:
        """Choose the masks of one refresh, in order. Override it where weights depend on one another.

        A weight takes its mask before the next one is asked for; what concerns all has to be known before the
        first is given.

        Args:
            weights: those that are due, of one optimizer.
            patterns: what each obeys now, see ``choose``.
        """
        for weight, pattern in zip(weights, patterns, strict=True):
            with naming(weight):
                chosen = self.choose(weight, pattern)
            yield chosen

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
        """Called after a change while the parameter still holds W: new values, optimizer state.

        Args:
            weight: it still has the old mask.
            old: mask before.
            new: mask after.
            optimizer: what trains it; ``None`` in ``prepare``, where nothing may be changed.
        """


@contextmanager
def naming(weight: MaskedWeight) -> Iterator[None]:
    """Errors name the weight and the step."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{weight.name}, step {weight.steps}: {error}") from error
