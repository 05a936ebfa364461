"""Statistics of the layers that are being visited, and the moment at which each is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bisparse.compress.inputs import Features
from bisparse.scores import LayerStatistics
from bisparse.weights import Weight, as_rows

__all__ = ["Gatherer", "products"]


def products(inputs: Tensor, rows: Tensor) -> Tensor:
    """(n, D) inputs times (R, D) rows: (n, R), in at least single precision."""
    kind = torch.promote_types(inputs.dtype, torch.float32)
    return inputs.to(kind) @ rows.to(kind).T


class Gatherer:
    """Accumulates ``LayerStatistics`` by weight name; holds only layers that are visited but not yet
    solved.
    """

    def __init__(self) -> None:
        self._open: dict[str, LayerStatistics] = {}

    def add(
        self, weights: Sequence[Weight], inputs: Mapping[str, Features], targets: Mapping[str, Features]
    ) -> None:
        """Add one call's samples.

        The target of a layer is what the dense weight makes of the dense network's input. Where the two
        networks sent different numbers of samples to a weight (a router decided otherwise), rows do not
        correspond, and the target is what the dense weight makes of the pruned network's input.

        Args:
            weights: whose samples they are; must hold their dense values.
            inputs: (n, D) inputs per group, by weight name; weights without any are passed over.
            targets: (n, R) targets per group, by weight name.

        Raises:
            ValueError: NaN or infinite activations; names the weight.
        """
        for weight in weights:
            if weight.name not in inputs:
                continue
            rows = as_rows(weight.parameter.detach(), weight.layout)
            if weight.name not in self._open:
                groups, outputs, columns = rows.shape
                self._open[weight.name] = LayerStatistics.zeros(groups, outputs, columns, rows.device)
            goals = targets.get(weight.name, inputs[weight.name])
            for group, (features, goal) in enumerate(zip(inputs[weight.name], goals, strict=True)):
                fits = goal.shape == (len(features), rows.shape[1])
                self._add_group(weight, group, features, goal if fits else products(features, rows[group]))

    def _add_group(self, weight: Weight, group: int, inputs: Tensor, targets: Tensor) -> None:
        try:
            self._open[weight.name].update_group(group, inputs, targets)
        except ValueError as error:
            raise ValueError(
                f"{weight.name}: {error}; check the calibration data and the dense model"
            ) from error

    def take(self, name: str) -> LayerStatistics | None:
        """Hand over a weight's statistics and forget them."""
        return self._open.pop(name, None)

    def waiting(self) -> list[str]:
        """Weights with statistics that nobody has taken."""
        return list(self._open)
