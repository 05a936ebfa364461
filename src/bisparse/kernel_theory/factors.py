"""Pieces of a Jacobian whose products are pieces of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Dense", "Factor", "Outer"]


class Factor(Protocol):
    """The derivatives of b examples' C outputs by some parameters, in any form that can be multiplied."""

    def product(self, other: Factor, *, trace: bool, memory: int) -> Tensor:
        """J Jᵀ of this piece: (b, k) summed over outputs where ``trace``, else (b, C, k, C)."""

    def column_squares(self) -> Tensor:
        """(P,): sum over examples and outputs of the squared derivative by each kept entry."""

    def along(self, direction: Tensor) -> Tensor:
        """(b, C): the derivative along a direction (P,) of the kept entries."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """The derivatives themselves: ``values`` (b, C, P), kept entries only."""

    values: Tensor

    def product(self, other: Factor, *, trace: bool, memory: int) -> Tensor:  # noqa: ARG002
        """See :class:`Factor`; cost b k C² P (C instead of C² for the trace)."""
        assert isinstance(other, Dense)
        left, right = self.values, other.values
        if trace:
            return left.flatten(1) @ right.flatten(1).T
        return (left.flatten(0, 1) @ right.flatten(0, 1).T).reshape(*left.shape[:2], *right.shape[:2])

    def column_squares(self) -> Tensor:
        """See :class:`Factor`."""
        return self.values.square().sum((0, 1))

    def along(self, direction: Tensor) -> Tensor:
        """See :class:`Factor`."""
        return self.values @ direction


@dataclass(frozen=True, slots=True, eq=False)
class Outer:
    """An unmasked Linear or convolution weight: J = Σ_t δ_t a_tᵀ over T positions, never formed.

    J Jᵀ = Σ_{t,s} (a_t · a'_s)(δ_t · δ'_s): for one position just the product of two Gram matrices.

    Attributes:
        inputs: (b, T, D).
        deltas: (b, C, T, R), derivatives of the outputs by the layer's outputs.
    """

    inputs: Tensor
    deltas: Tensor

    def product(self, other: Factor, *, trace: bool, memory: int) -> Tensor:
        """See :class:`Factor`; cost b k T² (D + C R) for the trace, in slices that fit the memory."""
        assert isinstance(other, Outer)
        outputs, positions = self.deltas.shape[1:3]
        size = self.inputs.element_size() * positions * other.inputs.shape[0] * other.inputs.shape[1]
        rows = max(1, memory // max(2 * size * (1 if trace else outputs), 1))
        pieces = zip(torch.split(self.inputs, rows), torch.split(self.deltas, rows), strict=True)
        multiply = _outer_trace if trace else _outer_full
        return torch.cat([multiply(a, d, other.inputs, other.deltas) for a, d in pieces])

    def column_squares(self) -> Tensor:
        """See :class:`Factor`; closed form for one position, else the derivatives are formed row by row."""
        if self.inputs.shape[1] == 1:
            return (self.deltas[:, :, 0].square().sum(1).T @ self.inputs[:, 0].square()).flatten()
        total = self.inputs.new_zeros(self.deltas.shape[3], self.inputs.shape[2])
        for a, d in zip(self.inputs, self.deltas, strict=True):
            total += torch.einsum("td,ctr->crd", a, d).square().sum(0)
        return total.flatten()

    def along(self, direction: Tensor) -> Tensor:
        """See :class:`Factor`; the weight's direction is applied to the inputs."""
        moved = self.inputs @ direction.reshape(self.deltas.shape[3], -1).T  # (b, T, R)
        return torch.einsum("btr,bctr->bc", moved, self.deltas)


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """(b, T, D), (k, S, D) -> (b, T, k, S)."""
    return (a.flatten(0, 1) @ b.flatten(0, 1).T).reshape(*a.shape[:2], *b.shape[:2])


def _outer_trace(a: Tensor, d: Tensor, a2: Tensor, d2: Tensor) -> Tensor:
    deltas = _gram(d.transpose(1, 2).flatten(2), d2.transpose(1, 2).flatten(2))
    return (_gram(a, a2) * deltas).sum((1, 3))


def _outer_full(a: Tensor, d: Tensor, a2: Tensor, d2: Tensor) -> Tensor:
    gram = _gram(a, a2)  # (b, T, k, S)
    rows = []
    for output in range(d.shape[1]):
        other = d2.flatten(1, 2)  # (k, C S, R)
        deltas = _gram(d[:, output], other).reshape(*gram.shape[:3], *d2.shape[1:3])  # (b, T, k, C, S)
        rows.append(torch.einsum("btks,btkcs->bkc", gram, deltas))
    return torch.stack(rows, 1)
