"""Degrees and strengths of neurons: how many edges each has, and how large they are together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.weights import Layout, as_matrices, from_matrices

__all__ = ["Neurons", "edges_of_inputs", "edges_of_outputs", "neurons"]


@dataclass(frozen=True, slots=True, eq=False)
class Neurons:
    """The neurons on both sides of one weight; a channel is one neuron, all its kernel positions together.

    Attributes:
        in_degree: kept edges into each output, int64 (outputs,).
        out_degree: kept edges out of each input, int64 (inputs,).
        in_strength: sum of |w| over the edges into each output, float64.
        out_strength: sum of |w| over the edges out of each input, float64.
    """

    in_degree: Tensor
    out_degree: Tensor
    in_strength: Tensor
    out_strength: Tensor

    def to_dict(self) -> dict[str, float]:
        """Smallest, mean and largest degrees, and how many neurons have no edge."""
        figures: dict[str, float] = {}
        for side, degree in (("in", self.in_degree), ("out", self.out_degree)):
            figures[f"{side}_degree_min"] = int(degree.min().item())
            figures[f"{side}_degree_mean"] = degree.double().mean().item()
            figures[f"{side}_degree_max"] = int(degree.max().item())
            figures[f"{side}_degree_none"] = int((degree == 0).sum().item())
        return figures


def neurons(values: Tensor, mask: Tensor, layout: Layout) -> Neurons:
    """Count and weigh the edges of a whole weight.

    Args:
        values: the weight.
        mask: booleans, same shape.
        layout: how it is read as matrices.

    Cost: a few passes over the weight.
    """
    degree = _grid(mask, layout).long()
    strength = _grid(values.detach().abs().double() * mask, layout)
    into, out = (1, 3), (1, 2)
    return Neurons(
        degree.sum(into).flatten(),
        degree.sum(out).flatten(),
        strength.sum(into).flatten(),
        strength.sum(out).flatten(),
    )


def edges_of_outputs(flags: Tensor, layout: Layout, shape: tuple[int, ...]) -> Tensor:
    """All entries that lead into the flagged outputs, booleans in the weight's shape."""
    grid = _grid(torch.empty(shape, device="meta"), layout).shape
    return _spread(flags.reshape(grid[0], 1, grid[2], 1), grid, layout, shape)


def edges_of_inputs(flags: Tensor, layout: Layout, shape: tuple[int, ...]) -> Tensor:
    """All entries that lead out of the flagged inputs, booleans in the weight's shape."""
    grid = _grid(torch.empty(shape, device="meta"), layout).shape
    return _spread(flags.reshape(grid[0], 1, 1, grid[3]), grid, layout, shape)


def _spread(flags: Tensor, grid: torch.Size, layout: Layout, shape: tuple[int, ...]) -> Tensor:
    matrices = as_matrices(torch.empty(shape, device="meta"), layout).shape
    return from_matrices(flags.expand(grid).reshape(matrices), layout, shape)


def _grid(tensor: Tensor, layout: Layout) -> Tensor:
    """(groups without common neurons, kernel positions, outputs, inputs)."""
    matrices = as_matrices(tensor, layout)
    batch, rows, columns = matrices.shape
    match layout.kind:
        case "linear" | "transposed":  # parts stacked along the rows share their inputs
            return matrices.reshape(1, 1, batch * rows, columns)
        case "conv" | "conv_transpose":
            return matrices.reshape(layout.parts, math.prod(tensor.shape[2:]), rows, columns)
    return matrices.unsqueeze(1)
