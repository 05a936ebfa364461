"""The progress bar of a training run, on stderr, only where somebody looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bisparse.train.callback import Callback, LogRow

if TYPE_CHECKING:
    from bisparse.train.train_report import TrainReport
    from bisparse.train.trainer import Trainer

__all__ = ["TrainBar"]

_MEMORY = 0.95
_INTERVAL = 0.1


class TrainBar(Callback):
    """Shows epoch, smoothed loss and accuracy, flip rate and the remaining time.

    Args:
        shown: True or False as the user says; ``None``: on a terminal only.
    """

    def __init__(self, shown: bool | None) -> None:
        self._console = Console(stderr=True)
        self._shown = self._console.is_terminal if shown is None else shown
        self._bars: Progress | None = None
        self._smooth: dict[str, float] = {}
        self._tail = ""
        self._drawn = 0.0

    def on_start(self, trainer: Trainer) -> None:
        """Begin where the run is."""
        if not (self._shown and trainer.processes.first):
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}"),
        )
        self._bars = Progress(*columns, console=self._console, transient=True)
        self._task = self._bars.add_task(
            "training", total=trainer.total_steps, completed=trainer.step, now=""
        )
        self._bars.start()

    def on_step(self, trainer: Trainer, row: LogRow) -> None:
        """Move the bar."""
        if self._bars is None:
            return
        for name in ("loss", "accuracy"):
            value = row[name]
            assert isinstance(value, float)
            self._smooth[name] = _MEMORY * self._smooth.get(name, value) + (1.0 - _MEMORY) * value
        if time.perf_counter() - self._drawn < _INTERVAL:
            return
        self._drawn = time.perf_counter()
        now = f"loss {self._smooth['loss']:.3f} accuracy {self._smooth['accuracy']:.3f}{self._flips(trainer)}"
        epoch = f"epoch {trainer.step // trainer.steps_per_epoch + 1}/{trainer.options.epochs}"
        self._bars.update(self._task, completed=trainer.step, description=epoch, now=now + self._tail)

    def on_epoch(self, trainer: Trainer, row: LogRow) -> None:  # noqa: ARG002
        """Keep the last held-out accuracy in sight."""
        held_out = row.get("validation_accuracy")
        if isinstance(held_out, float):
            self._tail = f" held out {held_out:.3f}"

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:  # noqa: ARG002
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar, also where the run was interrupted."""
        if self._bars is not None:
            self._bars.stop()

    def _flips(self, trainer: Trainer) -> str:
        history = [] if trainer.sparsifier is None else trainer.sparsifier.history
        return f" flips {history[-1]['flip_rate']:.2e}" if history else ""
