"""What a dense layer may be replaced by: one entry of a table for each kind of sparse layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from bisparse.nn import PackedLinear
from bisparse.pattern import NM

__all__ = ["CANDIDATES", "Candidate", "Mode"]

Mode = Literal["inference", "training"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kind of sparse layer.

    Attributes:
        name: shown in the table.
        misfit: (layer, pattern of its weight, mode) -> why it cannot be used, ``""`` where it can.
        build: (layer, pattern) -> the sparse layer, which computes the same function; the layer is not changed.
    """

    name: str
    misfit: Callable[[nn.Module, NM, Mode], str]
    build: Callable[[nn.Module, NM], nn.Module]


def _packed_misfit(layer: nn.Module, pattern: NM, mode: Mode) -> str:
    del pattern, mode  # any pattern; training needs a fixed mask, which is what a masked layer has
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if weight.device.type != "cpu":
        return f"packed layers run on the CPU, the weight is on {weight.device}"
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return f"packed products take float32 and bfloat16, not {str(weight.dtype).removeprefix('torch.')}"
    return ""


CANDIDATES: tuple[Candidate, ...] = (Candidate("packed", _packed_misfit, PackedLinear.from_linear),)
