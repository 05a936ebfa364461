"""Affine parameters of norm layers: what is scaled, and the outputs' derivatives by the result."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["ScaleRows", "is_known_norm", "scale_rows"]


@dataclass(frozen=True, slots=True, eq=False)
class ScaleRows:
    """A layer y = γ x̂ + β for b examples and C outputs of the network.

    Attributes:
        inputs: (b, T, F), x̂ at T positions.
        deltas: (b, C, T, F), derivatives by y.
    """

    inputs: Tensor
    deltas: Tensor

    def weight(self) -> Tensor:
        """(b, C, F): derivatives by γ."""
        return torch.einsum("btf,bctf->bcf", self.inputs, self.deltas)

    def bias(self) -> Tensor:
        """(b, C, F): derivatives by β."""
        return self.deltas.sum(2)


def is_known_norm(module: nn.Module) -> bool:
    """Batch norms (in evaluation mode) and layer norms."""
    return isinstance(module, _BatchNorm) or type(module) is nn.LayerNorm


def scale_rows(module: nn.Module, read: Tensor, deltas: Tensor) -> ScaleRows:
    """From a norm's input (b, ...) and the derivatives (b, C, ...) by its output."""
    examples, outputs = deltas.shape[:2]
    if isinstance(module, nn.LayerNorm):
        normal = F.layer_norm(read, module.normalized_shape, None, None, module.eps)
        features = math.prod(module.normalized_shape)
        return ScaleRows(
            normal.reshape(examples, -1, features), deltas.reshape(examples, outputs, -1, features)
        )
    assert isinstance(module, _BatchNorm)
    normal = F.batch_norm(read, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)
    channels = normal.shape[1]
    return ScaleRows(
        normal.reshape(examples, channels, -1).transpose(1, 2),
        deltas.reshape(examples, outputs, channels, -1).transpose(2, 3),
    )
