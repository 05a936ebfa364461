"""Statistics of the layers that are being visited, and the moment at which each is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bisparse.compress.inputs import Features
from bisparse.scores import LayerStatistics
from bisparse.weights import Weight, as_rows

__all__ = ["Gatherer"]


class Gatherer:
    """Accumulates ``LayerStatistics`` by weight name; holds only layers that are visited but not yet
    solved.
    """

    def __init__(self) -> None:
        self._open: dict[str, LayerStatistics] = {}

    def add(
        self, weights: Sequence[Weight], inputs: Mapping[str, Features], dense_inputs: Mapping[str, Features]
    ) -> None:
        """Add one call's samples.

        The target of a layer is what the dense weight makes of the dense network's input. Where the two
        networks sent different numbers of samples to a weight (a router decided otherwise), rows do not
        correspond, and the target is what the dense weight makes of the pruned network's input.

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
            for group, features in enumerate(inputs[weight.name]):
                dense = dense_inputs.get(weight.name, inputs[weight.name])[group]
                self._add_group(
                    weight, group, features, dense if len(dense) == len(features) else features, rows
                )

    def _add_group(self, weight: Weight, group: int, inputs: Tensor, dense: Tensor, rows: Tensor) -> None:
        kind = torch.promote_types(inputs.dtype, torch.float32)
        targets = dense.to(kind) @ rows[group].to(kind).T
        try:
            self._open[weight.name].update_group(group, inputs.to(kind), targets)
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
