"""What the demo measured: one row for every pattern and method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

__all__ = ["DemoReport", "DemoRow"]


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One pattern solved by one method, over all hidden layers; means over the runs, median of the time.

    Attributes:
        pattern: the pattern's text form.
        method: the solver.
        density: share of the hidden weights that the mask keeps.
        kept: share of the hidden layers' summed magnitude that the mask keeps.
        below_optimum: how much less than the proven optimum the mask keeps, as a share of the optimum.
        proof: the method's own proven gap, confirmed by ``verify_mask``; ``None`` where it proves nothing.
        accuracy_pruned: test accuracy right after pruning.
        accuracy_tuned: test accuracy after fine-tuning with the mask fixed.
        seconds: time to find the masks of one network.
    """

    pattern: str
    method: str
    density: float
    kept: float
    below_optimum: float
    proof: float | None
    accuracy_pruned: float
    accuracy_tuned: float
    seconds: float


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Everything that the demo measured, and one layer with its masks to look at.

    Attributes:
        dense_accuracy: mean test accuracy of the dense networks.
        dense_tuned_accuracy: the same after the fine-tuning that the pruned networks got.
        rows: the table, grouped by pattern.
        runs: networks trained, each from its own seed.
        test_examples: images in the test part.
        hidden_weights: prunable weights of one network.
        weight: (rows, columns), the last hidden layer of the first network.
        masks: that layer's mask for each ``(pattern, method)``.
        state: parameters of the first network, dense.
        sparse_state: the same network pruned to the last pattern by the exact method and fine-tuned.
    """

    dense_accuracy: float
    dense_tuned_accuracy: float
    rows: tuple[DemoRow, ...]
    runs: int
    test_examples: int
    hidden_weights: int
    weight: Tensor
    masks: Mapping[tuple[str, str], Tensor]
    state: Mapping[str, Tensor]
    sparse_state: Mapping[str, Tensor]

    def to_dict(self) -> dict[str, object]:
        """The numbers alone, ready for JSON."""
        return {
            "dense_accuracy": self.dense_accuracy,
            "dense_tuned_accuracy": self.dense_tuned_accuracy,
            "runs": self.runs,
            "test_examples": self.test_examples,
            "hidden_weights": self.hidden_weights,
            "rows": [asdict(row) for row in self.rows],
        }
