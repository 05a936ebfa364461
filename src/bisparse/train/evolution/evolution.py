"""What all ways of changing connections during training have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bisparse.nn.sparse_linear import SparseLinear
from bisparse.nn.sparse_topology import EdgeChange
from bisparse.train.callback import Callback
from bisparse.train.sparse_layers import agree

if TYPE_CHECKING:
    from bisparse.train.trainer import Trainer

__all__ = ["Edit", "Evolution"]

Edit = Callable[[SparseLinear, torch.Generator, torch.optim.Optimizer], EdgeChange]


class Evolution(Callback):
    """Edits the truly sparse layers of a model now and then; what the optimizer knows about survivors is carried.

    Random numbers depend on the trainer's seed and step only: a resumed run goes on bit for bit, and several processes
    make the same edits, which is checked after each. The time of edits is added to the trainer's ``seconds``.

    Args:
        last_layer: whether the model's last layer evolves, too, where it is a sparse one.

    Attributes:
        dropped: connections taken away so far.
        grown: connections added so far.
        seconds: spent in edits.
    """

    def __init__(self, *, last_layer: bool = True) -> None:
        self._last_layer = last_layer
        self.dropped, self.grown, self.seconds = 0, 0, 0.0

    def on_start(self, trainer: Trainer) -> None:
        """Look for layers.

        Raises:
            ValueError: the model has none that may evolve, or processes differ in theirs.
        """
        if not self.layers(trainer):
            raise ValueError(
                f"{type(trainer.model).__name__} has no truly sparse layer that could evolve: build it from "
                "bisparse.nn.SparseLinear or as bisparse.nn.SparseMLP"
            )
        agree(trainer.model, trainer.processes)

    def layers(self, trainer: Trainer) -> list[SparseLinear]:
        """The layers that evolve, in the order of the model."""
        linear = [
            module for module in trainer.model.modules() if isinstance(module, (SparseLinear, nn.Linear))
        ]
        considered = linear if self._last_layer else linear[:-1]
        return [layer for layer in considered if isinstance(layer, SparseLinear)]

    def edit(self, trainer: Trainer, change: Edit, kind: int) -> None:
        """Change every layer, count, and see to it that processes still agree.

        Args:
            trainer: whose model and optimizer.
            change: of one layer.
            kind: a number of its own for every kind of edit, below 16; random numbers depend on it.
        """
        begin = time.perf_counter()
        seed = ((trainer.options.seed + 1) * 2**40 + trainer.step) * 16 + kind
        generator = torch.Generator().manual_seed(seed % 2**64)
        changes = [change(layer, generator, trainer.built_optimizer) for layer in self.layers(trainer)]
        dropped, grown = sum(each.dropped for each in changes), sum(each.grown for each in changes)
        if dropped != grown:
            trainer.wrap()
        agree(trainer.model, trainer.processes)
        spent = time.perf_counter() - begin
        self.dropped, self.grown, self.seconds = (
            self.dropped + dropped,
            self.grown + grown,
            self.seconds + spent,
        )
        trainer.seconds += spent

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"dropped": self.dropped, "grown": self.grown, "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the counts."""
        for name, value in state.items():
            setattr(self, name, value)
