"""What the demo of sparse training measured: one row for every way to train, and how SET's connections moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from bisparse.report import Column, Table, counted

__all__ = ["SparseTrainingReport", "SparseTrainingRow"]


@dataclass(frozen=True, slots=True)
class SparseTrainingRow:
    """One way to train; means over the runs.

    Attributes:
        method: ``dense``, ``static``, ``set`` or ``rigl``.
        weights: how many the trained network has, biases not counted.
        accuracy: on the test images, which nothing was chosen by.
        lowest: of the runs.
        highest: of the runs.
        explored: share of all possible weights that a mask has kept at some time (R_s).
        moved: share of the connections that differ from the first ones.
        seconds: of training one network, masks included.
        curve: accuracy on held-out images after each epoch.
        explored_curve: R_s after each epoch; empty for dense training.
    """

    method: str
    weights: int
    accuracy: float
    lowest: float
    highest: float
    explored: float
    moved: float
    seconds: float
    curve: Sequence[float]
    explored_curve: Sequence[float]


@dataclass(frozen=True, slots=True)
class SparseTrainingReport:
    """Everything that the demo measured.

    Attributes:
        rows: one for each way to train.
        runs: networks trained in each way, each from its own seed.
        epochs: of each.
        test_examples: images in the test part.
        image: (8, 8), the mean training image.
        connections: by epoch (0 = the start), the number of SET's weights on each pixel, (8, 8); of the first run.
        state: the first run's parameters after SET.
    """

    rows: tuple[SparseTrainingRow, ...]
    runs: int
    epochs: int
    test_examples: int
    image: Tensor
    connections: Mapping[int, Tensor]
    state: Mapping[str, Tensor]

    def on_ink(self, epoch: int) -> float:
        """Share of SET's connections on the half of the pixels that has most ink."""
        grid = self.connections[epoch].flatten()
        inked = self.image.flatten().argsort(descending=True)[: grid.numel() // 2]
        return float(grid[inked].sum().item() / grid.sum().item())

    def to_dict(self) -> dict[str, object]:
        """The numbers alone, ready for JSON."""
        return {
            "runs": self.runs,
            "epochs": self.epochs,
            "test_examples": self.test_examples,
            "rows": [asdict(row) for row in self.rows],
            "connections_on_ink": {str(epoch): self.on_ink(epoch) for epoch in self.connections},
            "connections": {str(epoch): grid.tolist() for epoch, grid in self.connections.items()},
        }

    def to_table(self) -> Table:
        """One line for each way to train."""
        columns = [
            Column("method", "training"),
            Column("weights", "weights", "count"),
            Column("accuracy", "test accuracy", "share"),
            Column("lowest", "lowest", "share", 1),
            Column("highest", "highest", "share", 1),
            Column("explored", "ever tried", "share"),
            Column("moved", "moved", "share"),
            Column("seconds", "seconds", "number", 2),
        ]
        rows = [{column.key: getattr(row, column.key) for column in columns} for row in self.rows]
        title = (
            f"Handwritten digits, {counted(self.epochs, 'epoch', 'epochs')}, sparse from the first step on"
        )
        return Table(title, columns, rows)
