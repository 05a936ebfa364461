"""Importance pruning: neurons whose incoming weights are small lose them, and the network shrinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisparse.nn.sparse_topology import prune_neurons_
from bisparse.train.callback import LogRow
from bisparse.train.evolution.evolution import Evolution

if TYPE_CHECKING:
    from bisparse.train.trainer import Trainer

__all__ = ["ImportancePruning"]


class ImportancePruning(Evolution):
    """From some epoch on, every so many epochs, the least important hidden neurons lose all incoming connections.

    Connections are not refilled: put it before :class:`SetEvolution` among the callbacks, which then keeps the smaller
    number. Only neurons that still have connections are ranked. The model's outputs are left alone.

    Args:
        begin: first epoch after which neurons are cut.
        every: epochs between two cuts.
        share: of the connected neurons of each layer.

    Raises:
        ValueError: a number out of range.

    Source: S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021; the defaults
    are those of the published sequential program.
    """

    def __init__(self, *, begin: int = 200, every: int = 10, share: float = 0.2) -> None:
        super().__init__(last_layer=False)
        if min(begin, every) < 1:
            raise ValueError(f"begin={begin}, every={every}: must be at least 1")
        if not 0.0 <= share < 1.0:
            raise ValueError(f"share={share}: must lie in [0, 1)")
        self._begin, self._every, self._share = begin, every, share

    def on_epoch(self, trainer: Trainer, row: LogRow) -> None:
        """Cut where it is time."""
        since = int(row["epoch"] or 0) - self._begin
        if since < 0 or since % self._every or trainer.step >= trainer.total_steps:
            return
        self.edit(
            trainer,
            lambda layer, _, optimizer: prune_neurons_(layer, self._share, optimizer=optimizer),
            kind=1,
        )
