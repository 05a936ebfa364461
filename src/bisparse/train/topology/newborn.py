"""What new weights start from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.topology.randomness import generator
from bisparse.weights import Layout, as_matrices

__all__ = ["Newborn", "fans"]


@dataclass(frozen=True, slots=True)
class Newborn:
    """Values of new weights.

    Attributes:
        kind: ``zero``; ``normal``, N(0, ``std``**2), SET's original; ``he`` and ``xavier``, uniform within
            sqrt(6 / fan_in) and sqrt(6 / (fan_in + fan_out)) of the dense layer, Curci et al.'s.
        std: of ``normal``.

    Raises:
        ValueError: an unknown kind, or a ``std`` that is not positive.
    """

    kind: Literal["zero", "normal", "he", "xavier"] = "zero"
    std: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in ("zero", "normal", "he", "xavier"):
            raise ValueError(f"new weights {self.kind!r}: choose zero, normal, he or xavier")
        if not self.std > 0.0:
            raise ValueError(f"std={self.std}: must be positive")

    def fill_(self, weight: MaskedWeight, grown: Tensor, seed: int) -> None:
        """Set new weights, in place.

        Args:
            weight: its parameter holds W.
            grown: which entries are new (this process's part).
            seed: of the topology.
        """
        values = weight.values
        if self.kind == "zero":
            values.masked_fill_(grown, 0.0)
            return
        source = generator(seed, weight.name, weight.steps, "values")
        if self.kind == "normal":
            whole = torch.randn(weight.shape, generator=source).mul_(self.std)
        else:
            fan_in, fan_out = fans(weight.shape, weight.layout)
            limit = math.sqrt(6.0 / (fan_in if self.kind == "he" else fan_in + fan_out))
            whole = torch.rand(weight.shape, generator=source).mul_(2.0).sub_(1.0).mul_(limit)
        whole = whole.to(values)
        part = whole if weight.sharding is None else weight.sharding.scatter(whole)
        values.copy_(torch.where(grown, part, values))


def fans(shape: tuple[int, ...], layout: Layout) -> tuple[int, int]:
    """Inputs of an output unit and outputs of an input unit, kernel positions included."""
    batch, rows, columns = as_matrices(torch.empty(shape, device="meta"), layout).shape
    positions = batch // layout.parts if layout.kind in ("conv", "conv_transpose") else 1
    return columns * positions, rows * positions
