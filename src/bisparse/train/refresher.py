"""When masks change, how, and what is measured of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.clock import Clock
from bisparse.train.measures.record import Record
from bisparse.train.measures.summary import summary
from bisparse.train.schedule import Schedule
from bisparse.train.topology import Topology

__all__ = ["Refresher"]


class Refresher:
    """Counts steps and chooses new masks when the schedule says so.

    Args:
        schedule: when, and how dense.
        topology: how.
        window: refreshes in one window of the measures.

    Attributes:
        weights: all prepared weights.
        record: what changed at refreshes.
        observers: called with the figures of each refresh, when parameters are masked again.
        lead: the weight whose steps set the clock (several optimizers may each step on their own).
    """

    def __init__(self, schedule: Schedule, topology: Topology, window: int) -> None:
        self.schedule, self.topology = schedule, topology
        self.weights: tuple[MaskedWeight, ...] = ()
        self.record = Record(window)
        self.observers: list[Callable[[Mapping[str, Any]], None]] = []
        self.lead: MaskedWeight | None = None
        self._clock = Clock()

    def choose_first(self, weights: Sequence[MaskedWeight]) -> None:
        """Choose first masks; parameters hold W, and are not changed."""
        self.record = Record(self.record.window)
        for weight in weights:
            self.topology.observe_(weight)
        self._refresh(weights, None)

    def before_step(self, weights: Sequence[MaskedWeight], scale: Tensor | None) -> None:
        """Gradients are as they came, apart from a ``GradScaler``'s factor; nobody looks once masks stay."""
        freeze = self.schedule.freeze
        for weight in weights:
            if freeze is not None and weight.steps >= freeze:
                continue
            self.topology.look_(weight, due=self.schedule.due(weight.steps + 1), scale=scale)

    def after_step(self, weights: Sequence[MaskedWeight], optimizer: Any) -> bool:
        """A step is complete; parameters hold W. Returns whether masks were chosen."""
        for weight in weights:
            weight.steps, weight.version = weight.steps + 1, None
            self.topology.observe_(weight)
        due = [w for w in weights if self.schedule.due(w.steps)]
        started = time.perf_counter()
        if due:
            self._refresh(due, optimizer)
        moving = [w for w in weights if self.schedule.moves(w.steps) and not self.schedule.due(w.steps)]
        if self.topology.continuous and moving:
            self._follow(moving, optimizer)
        if weights[0] is self.lead:
            self._clock.tick(time.perf_counter() - started if due else 0.0)
        return bool(due)

    def notify(self) -> None:
        """Masks were chosen, and parameters are masked again."""
        if self.observers:
            figures = self.figures(diversity=False)
            for observer in self.observers:
                observer(figures)

    def figures(self, *, diversity: bool) -> dict[str, Any]:
        """What the last refresh changed and what refreshes cost."""
        times = self._clock.figures(self.schedule.every or 1)
        return summary(self.weights, self.record, times, diversity=diversity)

    def _refresh(self, weights: Sequence[MaskedWeight], optimizer: Any) -> None:
        patterns = [self.schedule.pattern(weight.pattern, weight.steps) for weight in weights]
        choices = self.topology.choose_all(weights, patterns)
        for weight, pattern, chosen in zip(weights, patterns, choices, strict=True):
            new = torch.ones_like(weight.mask) if chosen.mask is None else chosen.mask
            if pattern is not None or weight.refreshes:
                weight.fire_(new)
                self.record.add(weight, new, chosen.forced)
            weight.refreshes += pattern is not None
            self.topology.settle_(weight, weight.mask, new, optimizer)
            weight.pattern, weight.duals = chosen.pattern or weight.pattern, chosen.duals or weight.duals
            weight.set_mask(chosen.mask)
        self.record.close(max(weight.steps for weight in weights))

    def _follow(self, weights: Sequence[MaskedWeight], optimizer: Any) -> None:
        """Choose masks that follow their weights, between two measures."""
        patterns = [self.schedule.pattern(weight.pattern, weight.steps) for weight in weights]
        for weight, chosen in zip(weights, self.topology.choose_all(weights, patterns), strict=True):
            if chosen.mask is not None:
                weight.fire_(chosen.mask)
                self.topology.settle_(weight, weight.mask, chosen.mask, optimizer)
            weight.duals = chosen.duals or weight.duals
            weight.set_mask(chosen.mask)

    def __getstate__(self) -> dict[str, Any]:
        """Observers belong to the run, not to a copy of it."""
        return {**self.__dict__, "observers": []}
