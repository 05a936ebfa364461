"""Sparse evolutionary training: after every epoch weak connections die and random ones are born."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bisparse.nn.sparse_topology import set_step_
from bisparse.train.callback import LogRow
from bisparse.train.evolution.evolution import Evolution

if TYPE_CHECKING:
    from bisparse.train.trainer import Trainer

__all__ = ["SetEvolution"]


class SetEvolution(Evolution):
    """SET after every so many epochs, the last epoch excepted; the number of connections stays.

    Args:
        zeta: share of the positive and of the negative weights, those closest to zero, that are replaced.
        every: epochs between two edits.
        last_layer: whether the model's last layer evolves, too: yes in the original, no in the truly sparse programs.

    Raises:
        ValueError: a share outside [0, 1] or an interval below 1.

    Source: D. C. Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity
    inspired by network science", Nature Communications 2018, algorithm 1.
    """

    def __init__(self, zeta: float = 0.3, *, every: int = 1, last_layer: bool = True) -> None:
        super().__init__(last_layer=last_layer)
        if not 0.0 <= zeta <= 1.0:
            raise ValueError(f"zeta={zeta}: must lie between 0 and 1")
        if every < 1:
            raise ValueError(f"every={every}: must be at least 1")
        self._zeta, self._every = zeta, every

    def on_epoch(self, trainer: Trainer, row: LogRow) -> None:
        """Edit where it is time."""
        if int(row["epoch"] or 0) % self._every or trainer.step >= trainer.total_steps:
            return
        self.edit(
            trainer,
            lambda layer, generator, optimizer: set_step_(
                layer, self._zeta, generator=generator, optimizer=optimizer
            ),
            kind=0,
        )
