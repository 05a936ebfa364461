"""Labelled data, divided into a training and a test part."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Split"]


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled data in memory, already divided; every reader of the zoo returns one.

    Attributes:
        train_inputs: (n, ...) float32.
        train_labels: (n,) int64, class numbers from 0.
        test_inputs: (m, ...) float32.
        test_labels: (m,) int64.
    """

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor

    def __post_init__(self) -> None:
        for part, inputs, labels in (
            ("train", self.train_inputs, self.train_labels),
            ("test", self.test_inputs, self.test_labels),
        ):
            if labels.ndim != 1 or len(inputs) != len(labels):
                raise ValueError(
                    f"{part}_inputs: {len(inputs)} examples, {part}_labels: shape {tuple(labels.shape)}: "
                    "give one label per example"
                )

    @property
    def classes(self) -> int:
        """Number of classes: the largest label plus one."""
        return int(self.train_labels.max().item()) + 1
