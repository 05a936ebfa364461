"""How many thresholds a weight has, and which entries share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.nn.functional import pad

from bisparse.pattern import MAX_BLOCK
from bisparse.weights import Layout, as_matrices, from_matrices

__all__ = ["Granularity", "PerEntry", "PerRow", "PerTile", "PerWeight", "resolve_granularity"]


@runtime_checkable
class Granularity(Protocol):
    """Divides the entries of a weight among thresholds."""

    def shape(self, shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
        """Shape of the thresholds of a weight of that shape."""

    def spread(self, thresholds: Tensor, shape: Sequence[int], layout: Layout) -> Tensor:
        """Each entry's threshold: something that broadcasts to the weight."""

    def gather(self, values: Tensor, layout: Layout) -> Tensor:
        """Sum values shaped like the weight over the entries of each threshold: the transpose of ``spread``."""


@dataclass(frozen=True, slots=True)
class PerWeight:
    """``scalar``: one for the whole weight (each expert, where experts are stacked)."""

    def shape(self, shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
        """(1, ..., 1), or (experts, 1, 1)."""
        first = shape[0] if layout.kind.startswith("experts") else 1
        return (first, *(1 for _ in shape[1:]))

    def spread(self, thresholds: Tensor, shape: Sequence[int], layout: Layout) -> Tensor:  # noqa: ARG002
        """As they are."""
        return thresholds

    def gather(self, values: Tensor, layout: Layout) -> Tensor:
        """Sums of everything."""
        return values.sum_to_size(self.shape(values.shape, layout))


@dataclass(frozen=True, slots=True)
class PerRow:
    """``vector``: one for each output feature, filter or gate unit; all kernel positions of a filter share it."""

    def shape(self, shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
        """1 along inputs and kernel positions."""
        ones = [1] * len(shape)
        match layout.kind:
            case "transposed" | "conv_transpose":
                ones[0], ones[1] = layout.parts if layout.kind == "conv_transpose" else 1, shape[1]
            case "experts":
                ones[0], ones[1] = shape[0], shape[1]
            case "experts_transposed":
                ones[0], ones[2] = shape[0], shape[2]
            case _:
                ones[0] = shape[0]
        return tuple(ones)

    def spread(self, thresholds: Tensor, shape: Sequence[int], layout: Layout) -> Tensor:
        """As they are; those of a grouped transposed convolution are repeated for the inputs of their group."""
        if layout.kind == "conv_transpose" and layout.parts > 1:
            return thresholds.repeat_interleave(shape[0] // layout.parts, dim=0)
        return thresholds

    def gather(self, values: Tensor, layout: Layout) -> Tensor:
        """Sums of rows."""
        shape = self.shape(values.shape, layout)
        if layout.kind == "conv_transpose" and layout.parts > 1:
            values = values.reshape(layout.parts, -1, *values.shape[1:]).sum(1)
        return values.sum_to_size(shape)


@dataclass(frozen=True, slots=True)
class PerEntry:
    """``matrix``: one for every entry. It doubles the trained numbers."""

    def shape(self, shape: Sequence[int], layout: Layout) -> tuple[int, ...]:  # noqa: ARG002
        """The weight's."""
        return tuple(shape)

    def spread(self, thresholds: Tensor, shape: Sequence[int], layout: Layout) -> Tensor:  # noqa: ARG002
        """As they are."""
        return thresholds

    def gather(self, values: Tensor, layout: Layout) -> Tensor:  # noqa: ARG002
        """As they are, in memory of their own."""
        return values.clone()


@dataclass(frozen=True, slots=True)
class PerTile:
    """``tile:M``: one for each M x M tile of the weight's matrices: W and its transpose have the same thresholds.

    Raises:
        ValueError: ``block`` is outside 1..64.
    """

    block: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.block <= MAX_BLOCK:
            raise ValueError(f"tile:{self.block}: a tile has 1 to {MAX_BLOCK} rows and columns")

    def shape(self, shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
        """(batch, tiles down, tiles across)."""
        batch, rows, columns = _matrix_shape(shape, layout)
        return batch, -(-rows // self.block), -(-columns // self.block)

    def spread(self, thresholds: Tensor, shape: Sequence[int], layout: Layout) -> Tensor:
        """Shaped like the weight."""
        _, rows, columns = _matrix_shape(shape, layout)
        tall = thresholds.repeat_interleave(self.block, dim=1)[:, :rows]
        whole = tall.repeat_interleave(self.block, dim=2)[..., :columns]
        return from_matrices(whole, layout, shape)

    def gather(self, values: Tensor, layout: Layout) -> Tensor:
        """Sums of tiles."""
        matrices = as_matrices(values, layout)
        batch, rows, columns = matrices.shape
        matrices = pad(matrices, (0, -columns % self.block, 0, -rows % self.block))
        down, across = matrices.shape[1] // self.block, matrices.shape[2] // self.block
        return matrices.reshape(batch, down, self.block, across, self.block).sum((2, 4))


def _matrix_shape(shape: Sequence[int], layout: Layout) -> tuple[int, int, int]:
    from torch import empty

    batch, rows, columns = as_matrices(empty(tuple(shape), device="meta"), layout).shape
    return batch, rows, columns


_NAMES: dict[str, Callable[[], Granularity]] = {"vector": PerRow, "scalar": PerWeight, "matrix": PerEntry}


def resolve_granularity(granularity: str | Granularity) -> Granularity:
    """A granularity from text: ``vector``, ``scalar``, ``matrix``, ``tile:8``; a value passes through.

    Raises:
        ValueError: other text.
    """
    if not isinstance(granularity, str):
        return granularity
    head, _, tail = granularity.strip().lower().partition(":")
    if head == "tile" and tail.strip().isdigit():
        return PerTile(int(tail))
    if head not in _NAMES or tail:
        raise ValueError(f"unknown granularity {granularity!r}; choose vector, scalar, matrix or tile:8")
    return _NAMES[head]()
