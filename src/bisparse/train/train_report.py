"""What came out of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.report import Column, Table, counted, to_plain
from bisparse.train.sparse_layers import SparseLayer, sparse_layers

if TYPE_CHECKING:
    from bisparse.train.evaluation import Totals
    from bisparse.train.mask_check import MaskCheck
    from bisparse.train.trainer import Trainer

__all__ = ["TrainReport"]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The final numbers.

    Attributes:
        steps: optimizer steps.
        epochs: passes over the training data.
        seconds: spent in steps; evaluations and checkpoints are not counted.
        parts: ``validation`` and, where there are test data, ``test``: loss, accuracy, predictions.
        measures: of the sparsifier at its end (see :meth:`bisparse.Sparsifier.metrics`); empty for dense training.
        masks: every sparse weight, and whether it obeys its pattern; empty for dense training.
        rows: the log by epoch.
        layers: truly sparse layers and their connections; empty where there are none.
    """

    steps: int
    epochs: int
    seconds: float
    parts: Mapping[str, Totals]
    measures: Mapping[str, Any] = field(default_factory=dict)
    masks: tuple[MaskCheck, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    layers: tuple[SparseLayer, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What is sparse, in words."""
        told = [_layers_told(self.layers)] if self.layers else []
        return told + ([_masks_told(self.masks)] if self.masks else []) or ["dense"]

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        validation: Totals | None,
        test: Totals | None,
        measures: Mapping[str, Any],
        masks: Sequence[MaskCheck],
    ) -> TrainReport:
        """The report of a trainer at its end."""
        found = {"validation": validation, "test": test}
        parts = {name: totals for name, totals in found.items() if totals is not None}
        numbers = (trainer.step, trainer.options.epochs, trainer.seconds)
        return cls(*numbers, parts, measures, tuple(masks), tuple(trainer.rows), sparse_layers(trainer.model))

    @property
    def final(self) -> dict[str, float]:
        """``validation_loss``, ``validation_accuracy``, and the same of ``test``."""
        return {
            key: value for name, totals in self.parts.items() for key, value in totals.row(f"{name}_").items()
        }

    def __str__(self) -> str:
        numbers = ", ".join(
            f"{name} loss {totals.loss:.4f}, accuracy {totals.accuracy:.2%}"
            for name, totals in self.parts.items()
        )
        return f"{counted(self.steps, 'step', 'steps')} in {self.seconds:.1f} s: {numbers}"

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        plain: dict[str, object] = {
            "steps": self.steps,
            "epochs": self.epochs,
            "seconds": self.seconds,
            **to_plain(self.final),
            "measures": to_plain(self.measures),
            "rows": to_plain(list(self.rows)),
            "masks": [asdict(mask) for mask in self.masks],
            "layers": [asdict(layer) for layer in self.layers],
            "notes": self.notes,
        }
        return plain

    def to_table(self) -> Table:
        """Loss and accuracy on each part."""
        rows = [
            {"part": name, "loss": totals.loss, "accuracy": totals.accuracy, "count": totals.count}
            for name, totals in self.parts.items()
        ]
        columns = [
            Column("part", "examples"),
            Column("loss", "loss", "share"),
            Column("accuracy", "accuracy", "share"),
            Column("count", "predictions", "count", 1),
        ]
        title = f"{counted(self.epochs, 'epoch', 'epochs')}, {counted(self.steps, 'step', 'steps')}"
        return Table(f"{title}, {self.seconds:.1f} s", columns, rows, self.notes)

    def plot(self, path: str | Path) -> Path:
        """Draw loss, accuracy and, for sparse training, flip rates by cause and the kept magnitude over the epochs.

        Raises:
            ImportError: matplotlib is missing; the message names the extra.
        """
        from bisparse.train.train_picture import draw_run

        return draw_run(self.rows, Path(path))


def _layers_told(layers: Sequence[SparseLayer]) -> str:
    exist = sum(layer.connections for layer in layers)
    possible = sum(layer.shape[0] * layer.shape[1] for layer in layers)
    told = counted(len(layers), "truly sparse layer", "truly sparse layers")
    return f"{told}, {exist:,} of {possible:,} weights ({exist / possible:.2%})"


def _masks_told(masks: Sequence[MaskCheck]) -> str:
    failed = [mask.name for mask in masks if not mask.holds]
    patterns = ", ".join(sorted({mask.pattern for mask in masks}))
    told = f"{counted(len(masks), 'weight', 'weights')} of {patterns}"
    if failed:
        return f"{told}, NOT obeyed by {counted(len(failed), 'weight', 'weights')}: {failed[0]} ..."
    return f"{told}, verified"
