"""Weights that are divided among processes (FSDP2, tensor parallelism)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured
from bisparse.weights import Layout, as_matrices

__all__ = ["Sharding", "local"]


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; a tensor that is not divided is its own part. No copy."""
    part = getattr(tensor, "to_local", None)
    if part is None:
        return tensor
    with torch.no_grad():
        found: Tensor = part()
    return found


@dataclass(frozen=True, slots=True)
class Sharding:
    """How one weight is divided.

    Attributes:
        mesh: the processes.
        placements: one per dimension of the mesh.
        shape: of the whole weight.
        stride: of the whole weight.
    """

    mesh: Any
    placements: tuple[Any, ...]
    shape: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, parameter: Tensor) -> Sharding | None:
        """The sharding of a distributed tensor; ``None`` for a plain one.

        Raises:
            ValueError: the tensor holds partial sums, which have no values to choose a mask from.
        """
        if not hasattr(parameter, "placements"):
            return None
        placements = tuple(parameter.placements)
        if any(placement.is_partial() for placement in placements):
            raise ValueError(
                f"a weight of shape {tuple(parameter.shape)} holds partial sums ({placements}); redistribute it "
                "to Shard or Replicate first"
            )
        mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
        return cls(mesh, placements, parameter.shape, parameter.stride())

    @property
    def parts(self) -> int:
        """How many different parts the weight is divided into."""
        return math.prod(self.mesh.size(d) for d, p in enumerate(self.placements) if p.is_shard())

    def wrap(self, part: Tensor) -> Tensor:
        """This process's part as a distributed tensor."""
        from torch.distributed.tensor import DTensor

        return DTensor.from_local(
            part, self.mesh, self.placements, run_check=False, shape=self.shape, stride=self.stride
        )

    @property
    def by_rows(self) -> bool:
        """Whether parts are whole rows: slices along the first dimension."""
        return all(placement.dim == 0 for placement in self.placements if placement.is_shard())

    def wrap_rows(self, rows: Tensor) -> Tensor:
        """Rows of this process's part, (R, n), as a distributed tensor divided like the weight's rows."""
        from torch.distributed.tensor import DTensor

        shape = torch.Size((self.shape[0], rows.shape[1]))
        return DTensor.from_local(
            rows, self.mesh, self.placements, run_check=False, shape=shape, stride=(rows.shape[1], 1)
        )

    def unwrap(self, whole: Tensor) -> Tensor:
        """This process's part of a distributed tensor that is divided in whatever way."""
        return local(whole.redistribute(self.mesh, self.placements))  # type: ignore[attr-defined]

    def gather(self, part: Tensor) -> Tensor:
        """The whole tensor on every process. A collective: all processes of the mesh must call it."""
        whole: Tensor = self.wrap(part).full_tensor()  # type: ignore[attr-defined]
        return whole

    def scatter(self, whole: Tensor) -> Tensor:
        """This process's part of a tensor that every process has; no communication."""
        from torch.distributed.tensor import distribute_tensor

        return local(distribute_tensor(whole, self.mesh, self.placements, src_data_rank=None)).contiguous()

    def sum_(self, figures: Tensor) -> Tensor:
        """Add figures over all processes that hold different parts. A collective."""
        import torch.distributed as dist

        for dimension, placement in enumerate(self.placements):
            if placement.is_shard():
                dist.all_reduce(figures, group=self.mesh.get_group(dimension))
        return figures

    def local_layout(self, layout: Layout, pattern: Pattern) -> Layout | None:
        """How to read this process's part so that its masks are those of the whole weight.

        Returns:
            A layout where all boundaries between parts are boundaries between tiles (or groups) of the
            pattern; ``None`` where the weight has to be gathered. The same on every process.
        """
        divided = [(d, p) for d, p in enumerate(self.placements) if p.is_shard()]
        if not divided:
            return layout
        if isinstance(pattern, Unstructured) or len(divided) > 1 or type(divided[0][1]).__name__ != "Shard":
            return None
        dimension, placement = divided[0]
        chunk = -(-self.shape[placement.dim] // self.mesh.size(dimension))
        return _clean_layout(layout, pattern, placement.dim % len(self.shape), chunk)

    def of_duals(self, layout: Layout, pattern: TransposableNM) -> tuple[Sharding, Sharding] | None:
        """How row and column potentials are divided where each process solves its own part.

        Returns:
            ``None`` where the weight is gathered: every process then has all potentials.
        """
        divided = [(d, p) for d, p in enumerate(self.placements) if p.is_shard()]
        if not divided or self.local_layout(layout, pattern) is None:
            return None
        axis = _axis(layout, divided[0][1].dim % len(self.shape))
        batch, rows, columns = as_matrices(torch.empty(self.shape, device="meta"), layout).shape
        placements = list(self.placements)
        placements[divided[0][0]] = type(divided[0][1])({"other": 0, "rows": 1, "columns": 2}[axis])
        down, across = -(-rows // pattern.block), -(-columns // pattern.block)
        shapes = (torch.Size((batch, rows, across)), torch.Size((batch, down, columns)))
        row_part, column_part = (
            Sharding(self.mesh, tuple(placements), shape, (shape[1] * shape[2], shape[2], 1))
            for shape in shapes
        )
        return row_part, column_part


def _clean_layout(layout: Layout, pattern: Pattern, dim: int, chunk: int) -> Layout | None:
    """Layout of a chunk of the weight along one of its dimensions, where no tile is cut."""
    axis = _axis(layout, dim)
    if axis == "other":
        return layout if dim == 0 else None  # experts; kernel positions of a part would be in another order
    if axis == "rows" and isinstance(pattern, NM):
        return Layout(layout.kind, 1, layout.oriented) if layout.kind in ("linear", "conv") else layout
    block = pattern.block if not isinstance(pattern, Unstructured) else 0
    return layout if layout.parts == 1 and block and chunk % block == 0 else None


def _axis(layout: Layout, dim: int) -> str:
    """What a dimension of the tensor is in the matrices: rows, columns, or something that no tile spans."""
    axes: Sequence[str] = {
        "linear": ("rows", "columns"),
        "transposed": ("columns", "rows"),
        "conv": ("rows", "columns"),
        "conv_transpose": ("columns", "rows"),
        "experts": ("other", "rows", "columns"),
        "experts_transposed": ("other", "columns", "rows"),
    }[layout.kind]
    return axes[dim] if dim < len(axes) else "other"
