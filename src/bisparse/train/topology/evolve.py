"""Topologies that evolve: at every refresh some kept weights are given up and as many new ones grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from bisparse.masks.solve import solve_mask
from bisparse.pattern import Pattern, Unstructured
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.rules import Hard, Rule
from bisparse.train.schedule import Schedule
from bisparse.train.topology.carry import reset_state_
from bisparse.train.topology.drop import Drop, Magnitude
from bisparse.train.topology.fraction import Fraction
from bisparse.train.topology.grow import Grow, Random
from bisparse.train.topology.importance import Importance
from bisparse.train.topology.newborn import Newborn
from bisparse.train.topology.projection import Projection
from bisparse.train.topology.redistribution import Redistribution
from bisparse.train.topology.selection import completed, keeping, largest
from bisparse.train.topology.signals import Signals
from bisparse.train.topology.topology import Chosen, Topology, naming
from bisparse.train.topology.view import View, view
from bisparse.weights import as_matrices, from_matrices

__all__ = ["Evolve"]


@dataclass(frozen=True, kw_only=True)
class Evolve(Topology):
    """Sparse from the first step to the last: drop, grow, redistribute, each chosen for itself.

    At a refresh a weight with n kept entries gives up ``floor(fraction * n)`` of them by ``drop``, and grows as many
    by ``grow``: counts are exact, and change only with a ramp, ``redistribute`` or ``neurons``. Under an N:M or
    transposable N:M pattern the exact solver grows the best entries that fit around what survives; the
    constraint may then force an entry back that was just dropped. An entry that comes back at once keeps its
    value and its optimizer state; new ones start from ``newborn`` with fresh state; dropped ones are forgotten.

    The optimizer makes its step first and masks are chosen after it, from the gradient of that step. (RigL's
    reference chooses masks *instead of* a step; one step in ``every`` differs.) Everything depends on the seed, the
    weight's name and the step alone: equal on all processes and for any number of threads, and a resumed run
    goes on bit for bit. Weights that are divided among processes are gathered one at a time at a refresh; with
    ``redistribute`` or ``neurons`` all together.

    Attributes:
        drop: which kept weights go.
        grow: where new ones come.
        redistribute: shares the new ones out over all layers of one optimizer; ``None`` = each layer keeps its number.
        fraction: what share is exchanged.
        first: first masks at random (Erdos-Renyi, exact count), or where the initial weights are largest.
        newborn: what new weights start from.
        neurons: cut unimportant neurons; ``None`` = never.
        gradients: average so many of the last gradients, where gradients are asked for.
        beta: weight of the past in the moving average of gradients, where momentum is asked for.
        seed: of everything random.
        schedule: filled in by the sparsifier.

    Raises:
        ValueError: a number out of range.
    """

    rule: ClassVar[str] = "hard"

    drop: Drop = field(default_factory=Magnitude)
    grow: Grow = field(default_factory=Random)
    redistribute: Redistribution | None = None
    fraction: Fraction = field(default_factory=Fraction)
    first: Literal["random", "magnitude"] = "random"
    newborn: Newborn = field(default_factory=Newborn)
    neurons: Importance | None = None
    gradients: int = 1
    beta: float = 0.9
    seed: int = 0
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.first not in ("random", "magnitude"):
            raise ValueError(f"first={self.first!r}: choose random or magnitude")
        if self.gradients < 1:
            raise ValueError(f"gradients={self.gradients}: average 1 or more")
        if not 0.0 <= self.beta < 1.0:
            raise ValueError(f"beta={self.beta}: the weight of the past lies in [0, 1)")

    def under(self, schedule: Schedule) -> Self:
        """Take the end of the fraction's course from the schedule.

        Raises:
            ValueError: the course has no end, or a ramp together with what moves density.
        """
        end = schedule.freeze if self.fraction.end is None else self.fraction.end
        fraction = replace(self.fraction, end=end or None)
        if end != 0:
            fraction.at(0)
        if schedule.ramp is not None and (self.redistribute or self.neurons):
            raise ValueError(
                "a ramp sets every layer's density: leave out redistribute and neurons, or the ramp"
            )
        return replace(self, fraction=fraction, schedule=schedule)

    def check(self, weight: MaskedWeight, rule: Rule) -> None:
        """Rules that train dropped entries have no meaning here, nor have tiles whose density moves.

        Raises:
            ValueError: such a rule, or such a pattern.
        """
        if not isinstance(rule, Hard):
            raise ValueError(
                f'{type(self).__name__} forgets what it drops: its rule is "hard", not {type(rule).__name__}; leave '
                "rule out"
            )
        if (self.redistribute or self.neurons) and not isinstance(weight.pattern, Unstructured):
            raise ValueError(
                f"{weight.name}: {weight.pattern} fixes the number of weights in every tile; redistribute and "
                "neurons need unstructured patterns"
            )

    def look_(self, weight: MaskedWeight, *, due: bool, scale: Tensor | None = None) -> None:
        """Collect the gradients that drop, grow and redistribution ask for."""
        self._signals.look_(weight, due=due, scale=scale)

    def observe_(self, weight: MaskedWeight) -> None:
        """Forget, after the first step, what ``prepare`` dropped (until then a checkpoint may bring it back)."""
        if weight.steps == 1 and not weight.is_dense:
            weight.values.masked_fill_(weight.mask.logical_not(), 0.0)

    def choose(self, weight: MaskedWeight, pattern: Pattern | None) -> Chosen:
        """One weight for itself."""
        if pattern is None:
            return Chosen(None)
        if not weight.refreshes:
            return self._first(weight, pattern)
        if not self._signals.complete(weight):
            return Chosen(weight.mask.clone())  # no gradient has come: nothing tells where to grow
        seen = view(weight, self.seed, self._signals.take(weight))
        return Chosen(seen.part(self._evolved(seen, self._surviving(seen), pattern)))

    def choose_all(
        self, weights: Sequence[MaskedWeight], patterns: Sequence[Pattern | None]
    ) -> Iterator[Chosen]:
        """One weight after the other, or all together where density moves."""
        if not self.redistribute and not self.neurons:
            yield from super().choose_all(weights, patterns)
            return
        ready = [
            weight
            for weight, pattern in zip(weights, patterns, strict=True)
            if pattern is not None and weight.refreshes and self._signals.complete(weight)
        ]
        together = self._together(ready)
        for weight, pattern in zip(weights, patterns, strict=True):
            with naming(weight):
                chosen = next(together) if weight in ready else self.choose(weight, pattern)
            yield chosen

    def settle_(
        self, weight: MaskedWeight, old: Tensor, new: Tensor, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Dropped weights are forgotten, new ones start from ``newborn``; survivors alone keep optimizer state."""
        if optimizer is None:
            return
        carried = old & new
        weight.values.masked_fill_(new.logical_not(), 0.0)
        self.newborn.fill_(weight, new & ~old, self.seed)
        reset_state_(optimizer, weight.parameter, carried)

    @property
    def _signals(self) -> Signals:
        needs = (
            self.drop.needs
            | self.grow.needs
            | (self.redistribute.needs if self.redistribute else frozenset())
        )
        return Signals(needs, self.gradients, self.beta, self.schedule)

    def _first(self, weight: MaskedWeight, pattern: Pattern) -> Chosen:
        if self.first == "magnitude":
            return Projection().choose(weight, pattern)
        seen = view(weight, self.seed, {})
        scores = as_matrices(seen.random("first"), weight.layout)
        mask = solve_mask(scores, pattern).mask
        return Chosen(seen.part(from_matrices(mask, weight.layout, weight.shape)))

    def _surviving(self, seen: View) -> Tensor:
        return self.drop.surviving(seen, self.fraction.at(seen.weight.steps))

    def _evolved(self, seen: View, surviving: Tensor, pattern: Pattern) -> Tensor:
        """The new mask: what survives, and what grows around it."""
        growth = self.grow.scores(seen)
        if not isinstance(pattern, Unstructured):
            return completed(surviving, growth, pattern, seen.weight.layout)
        kept, target = int(surviving.sum().item()), pattern.kept(surviving.numel())
        if kept > target:  # a ramp
            return largest(self.drop.scores(seen), surviving, target)
        return surviving | largest(growth, ~surviving, target - kept)

    def _together(self, weights: Sequence[MaskedWeight]) -> Iterator[Chosen]:
        """Masks of weights among which density moves."""
        views = [view(weight, self.seed, self._signals.take(weight)) for weight in weights]
        surviving, quotas = self._plan(views)
        for seen, kept, quota in zip(views, surviving, quotas, strict=True):
            pattern = keeping(int(kept.sum().item()) + quota, kept.numel())
            yield Chosen(seen.part(self._evolved(seen, kept, pattern)), pattern=pattern)

    def _plan(self, views: Sequence[View]) -> tuple[list[Tensor], list[int]]:
        """What survives everywhere, and how many weights each layer grows."""
        if self.neurons is not None and views and self.neurons.due(views[0].weight.refreshes):
            cuts = self.neurons.cuts(views)
            views = [replace(seen, mask=seen.mask & ~cut) for seen, cut in zip(views, cuts, strict=True)]
        surviving = [self._surviving(seen) for seen in views]
        dropped = [
            int(seen.mask.sum().item()) - int(kept.sum().item())
            for seen, kept in zip(views, surviving, strict=True)
        ]
        if self.redistribute is None:
            return surviving, dropped
        return surviving, self.redistribute.quotas(views, surviving, sum(dropped))
