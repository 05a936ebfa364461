"""The spectrum tracker as a callback of the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bisparse.kernel_theory.tracker import SpectrumTracker
from bisparse.train.callback import Callback, LogRow

if TYPE_CHECKING:
    from bisparse.train.train_report import TrainReport
    from bisparse.train.trainer import Trainer

__all__ = ["SpectrumCallback"]


class SpectrumCallback(Callback):
    """A snapshot at the start, every so many steps, and at the end; masks come from the trainer's sparsifier.

    Snapshots travel in the trainer's checkpoints. Under several processes only the first one takes them.

    Args:
        tracker: what to take snapshots with.
        every: optimizer steps between two snapshots.

    Raises:
        ValueError: ``every`` below 1.
    """

    def __init__(self, tracker: SpectrumTracker, every: int = 100) -> None:
        if every < 1:
            raise ValueError(f"every={every}: take a snapshot every 1 or more steps")
        self.tracker, self.every = tracker, every

    def on_start(self, trainer: Trainer) -> None:
        """See the base class."""
        if self.tracker.sparsifier is None:
            self.tracker.sparsifier = trainer.sparsifier
        if not self.tracker.history:
            self._observe(trainer)

    def on_step(self, trainer: Trainer, row: LogRow) -> None:  # noqa: ARG002
        """See the base class."""
        if trainer.step % self.every == 0:
            self._observe(trainer)

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:  # noqa: ARG002
        """See the base class."""
        if not self.tracker.history or self.tracker.history[-1].step < trainer.step:
            self._observe(trainer)

    def state_dict(self) -> dict[str, Any]:
        """See the base class."""
        return self.tracker.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See the base class."""
        self.tracker.load_state_dict(dict(state))

    def _observe(self, trainer: Trainer) -> None:
        if trainer.processes.first:
            self.tracker.observe(trainer.model, trainer.step)
