"""Loss and accuracy over many batches, on all processes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bisparse.train.examples import Examples, in_order
from bisparse.train.loading import Request, load, moved
from bisparse.train.objective import Objective, Outcome
from bisparse.train.processes import Processes

__all__ = ["Totals", "evaluate"]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over predictions: of losses, of right ones, of all."""

    loss_sum: float = 0.0
    hits: int = 0
    count: int = 0

    @classmethod
    def of(cls, outcome: Outcome) -> Totals:
        """Of one batch; waits for the device."""
        count = int(outcome.count)
        return cls(float(outcome.loss.detach()) * count, int(outcome.hits), count)

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.loss_sum + other.loss_sum, self.hits + other.hits, self.count + other.count)

    @property
    def loss(self) -> float:
        """Mean per prediction; NaN for none."""
        return self.loss_sum / self.count if self.count else float("nan")

    @property
    def accuracy(self) -> float:
        """Share that is right; NaN for none."""
        return self.hits / self.count if self.count else float("nan")

    def row(self, prefix: str = "") -> dict[str, float]:
        """Both, as columns of a log."""
        return {f"{prefix}loss": self.loss, f"{prefix}accuracy": self.accuracy}

    def as_tuple(self) -> tuple[float, int, int]:
        """The three sums."""
        return self.loss_sum, self.hits, self.count

    def over(self, processes: Processes) -> Totals:
        """The sums over all processes."""
        if processes.world == 1:
            return self
        loss_sum, hits, count = processes.summed(torch.tensor(self.as_tuple(), dtype=torch.float64)).tolist()
        return Totals(loss_sum, int(hits), int(count))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    examples: Examples,
    objective: Objective,
    batch: int,
    processes: Processes,
    precision: Callable[[], Any],
) -> Totals:
    """Pass over all examples once, each process over its share; the model's training mode is restored.

    Args:
        model: what to evaluate.
        examples: unchanged by any randomness.
        objective: what to measure.
        batch: examples at once.
        processes: among which the batches are dealt out.
        precision: makes the context in which the model runs.
    """
    was_training = model.training
    model.eval()
    mine = [Request(chosen) for chosen in in_order(len(examples), batch)][processes.rank :: processes.world]
    totals = Totals()
    try:
        for part in load(examples, mine):
            with precision():
                totals += Totals.of(objective(model, moved(part, processes.device)))
    finally:
        model.train(was_training)
    return totals.over(processes)
