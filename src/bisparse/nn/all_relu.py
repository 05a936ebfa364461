"""Alternated left ReLU: a leaky ReLU whose slope changes sign from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["AllReLU"]


class AllReLU(nn.Module):
    """f(x) = x for x > 0, else ``-slope * x`` in layers of even index and ``slope * x`` in layers of odd index.

    Layers are counted from the input, which is layer 1: the first hidden layer has index 2, and gives *positive*
    outputs for negative inputs. Nothing is trained. The derivative at 0 is that of the left side.

    Args:
        layer_index: 1 or more; 2 for the first hidden layer.
        slope: of the left side, 0 or more; 0 is ReLU. The authors use 0.6 on Fashion-MNIST, 0.75 on CIFAR-10.

    Shape:
        any, any floating dtype; the result has the same.

    Raises:
        ValueError: an index below 1, a negative slope, or one that is not finite.

    Source: Curci et al. 2021 (arXiv 2102.01732).
    """

    def __init__(self, layer_index: int, slope: float = 0.6) -> None:
        super().__init__()
        if isinstance(layer_index, bool) or not isinstance(layer_index, int) or layer_index < 1:
            raise ValueError(
                f"layer_index={layer_index!r}: layers are counted from the input, 1; use 2 for the first hidden one"
            )
        if not (math.isfinite(slope) and slope >= 0.0):
            raise ValueError(
                f"slope={slope}: a finite number that is not negative; its sign follows the layer"
            )
        self.layer_index, self.slope = layer_index, float(slope)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply it to every entry."""
        left = self.slope if self.layer_index % 2 else -self.slope
        return torch.nn.functional.leaky_relu(inputs, left)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"layer_index={self.layer_index}, slope={self.slope}"
