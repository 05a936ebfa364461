"""The log of a training run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.train.callback import Callback, LogRow

if TYPE_CHECKING:
    from bisparse.train.train_report import TrainReport
    from bisparse.train.trainer import Trainer

__all__ = ["TensorBoardLog"]


class TensorBoardLog(Callback):
    """Writes scalars of epochs, and of every ``every``-th step, into a folder.

    Raises:
        ImportError: TensorBoard is missing; the message names the extra.
    """

    def __init__(self, folder: Path, *, every: int = 50) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ImportError(
                'TensorBoard logs need tensorboard: pip install "bisparse[tensorboard]"'
            ) from error
        self._make, self._folder, self._every = SummaryWriter, folder, every
        self._writer: Any = None

    def on_start(self, trainer: Trainer) -> None:
        """Open the log; rows behind the checkpoint of a resumed run are hidden."""
        if trainer.processes.first:
            self._writer = self._make(str(self._folder), purge_step=trainer.step or None)

    def on_step(self, trainer: Trainer, row: LogRow) -> None:
        """Log some of the steps."""
        if trainer.step % self._every == 0:
            self._add("step", trainer.step, row)

    def on_epoch(self, trainer: Trainer, row: LogRow) -> None:
        """Log every epoch."""
        self._add("epoch", trainer.step, row)

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:
        """Log the final numbers and close."""
        self._add("final", trainer.step, report.final)
        if self._writer is not None:
            self._writer.close()

    def _add(self, group: str, step: int, row: LogRow) -> None:
        if self._writer is None:
            return
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("step", "epoch"):
                self._writer.add_scalar(f"{group}/{name}", value, step)
