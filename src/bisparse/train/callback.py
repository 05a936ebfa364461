"""What may be told about a training run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from bisparse.train.train_report import TrainReport
    from bisparse.train.trainer import Trainer

__all__ = ["Callback", "LogRow"]

LogRow: TypeAlias = Mapping[str, "str | int | float | None"]


class Callback:
    """Does nothing; override what you need. Called on every process, in the order in which they were given.

    A callback with a state of its own returns it from ``state_dict``: it then travels in the checkpoints.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step of this process; a resumed run has its state by then."""

    def on_step(self, trainer: Trainer, row: LogRow) -> None:
        """After an optimizer step: ``step``, ``epoch``, ``loss``, ``accuracy`` (of the batch) and ``lr``."""

    def on_epoch(self, trainer: Trainer, row: LogRow) -> None:
        """After an epoch and its evaluation, before its checkpoint."""

    def on_end(self, trainer: Trainer, report: TrainReport) -> None:
        """After the last evaluation, which alone looks at the test data."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state; called before ``on_start``. Empty where the stopped run had no such callback."""
