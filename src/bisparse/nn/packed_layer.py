"""What packed layers share: the packed weight as parameter and buffers, and how it is saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from bisparse.kernels.forward_mode import refuse_forward_mode
from bisparse.kernels.packed import PackedMatrix, free_bytes, pack_matrix, packed_sizes
from bisparse.kernels.products import multiply
from bisparse.pattern import NM, TransposableNM, parse_pattern

__all__ = ["PackedLayer"]


class PackedLayer(nn.Module):
    """A module whose weight is a packed (rows, columns) matrix.

    ``values`` is a parameter; ``index`` and, where groups keep fewer than the pattern allows, ``free`` are buffers:
    the state dict is the packed form. A fresh layer holds zeros; its weight comes from a state dict or from the
    ``from_...`` constructors of its subclasses.
    """

    values: nn.Parameter
    index: Tensor
    free: Tensor | None
    bias: nn.Parameter | None

    def __init__(
        self,
        rows: int,
        columns: int,
        pattern: str | NM | TransposableNM,
        bias: bool,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        wanted = parse_pattern(pattern)
        if not isinstance(wanted, (NM, TransposableNM)):
            raise ValueError(f"{wanted}: packed layers take keep:block patterns such as 2:4 or 4:8t")
        self.rows, self.columns, self.pattern = rows, columns, wanted
        slots, index_bytes = packed_sizes(columns, wanted.keep, wanted.block)
        self.values = nn.Parameter(torch.zeros((rows, slots), dtype=dtype))
        self.register_buffer("index", _first_slots(columns, wanted, index_bytes).repeat(rows, 1))
        self.register_buffer("free", None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(rows, dtype=dtype)) if bias else None)

    @property
    def packed(self) -> PackedMatrix:
        """The weight as a value; its parts share memory with the layer."""
        return PackedMatrix(
            self.values.detach(), self.index, (self.rows, self.columns), self.pattern, self.free
        )

    def pack(self, weight: Tensor) -> PackedMatrix:
        """A dense weight as this layer would hold it: of its pattern and dtype.

        Raises:
            ValueError: another shape, or the weight breaks the pattern.
        """
        packed = pack_matrix(self._matrix(weight).to(self.values.dtype), self.pattern)
        if packed.shape != (self.rows, self.columns):
            raise ValueError(f"{packed.shape} does not fit a layer that holds {(self.rows, self.columns)}")
        return packed

    def _matrix(self, weight: Tensor) -> Tensor:
        """A dense weight as (rows, columns)."""
        return weight

    def _adopt(self, packed: PackedMatrix, weight: Tensor, bias: Tensor | None) -> None:
        """Take over a packed weight, and the bias of the module that it came from."""
        self.values = nn.Parameter(packed.values, requires_grad=weight.requires_grad)
        self.index, self.free = packed.index, packed.free
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)

    def _ready(self, x: Tensor) -> Tensor:
        """The input in the dtype that autocast asks for.

        Refuses devices that packed products do not run on, and forward-mode derivatives, which PyTorch would take
        for zero.
        """
        if x.device.type not in ("cpu", "meta") or self.values.device.type not in ("cpu", "meta"):
            raise RuntimeError(
                f"{type(self).__name__} runs on the CPU, but its input is on {x.device} and its values on "
                f"{self.values.device}: move both with .cpu(), or go back to a dense layer"
            )
        refuse_forward_mode(type(self).__name__, "bisparse.to_dense(model)", x, self.values, self.bias)
        if torch.is_autocast_enabled("cpu"):
            return x.to(torch.get_autocast_dtype("cpu"))
        return x

    def _multiply(self, x: Tensor) -> Tensor:
        """(..., columns) -> (..., rows)."""
        pattern = self.pattern
        if _is_plain(x):
            return multiply(x, self.values, self.index, self.bias, self.columns, pattern.keep, pattern.block)
        product: Tensor = torch.ops.bisparse.packed_linear(
            x, self.values, self.index, self.free, self.bias, self.columns, pattern.keep, pattern.block
        )
        return product

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """Also loads ``free`` where either side has none, and refuses an index that breaks the pattern."""
        free = state_dict.get(f"{prefix}free")
        slots = self.values.shape[1]
        self.free = None if free is None else torch.zeros((self.rows, free_bytes(slots)), dtype=torch.uint8)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        errors: list[str] = arguments[4]
        if not self.index.is_meta:
            try:
                self.packed.check()
            except ValueError as error:
                errors.append(f"{prefix}index: {error}")

    def _sizes(self) -> str:
        bias = self.bias is not None
        return f"pattern={str(self.pattern)!r}, bias={bias}, dtype={self.values.dtype}"


def _is_plain(x: Tensor) -> bool:
    """Whether nobody is to see the call as an operator: it then costs a third of the time, 10 us instead of 30."""
    return (
        type(x) is Tensor
        and not x.is_meta
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and _get_current_dispatch_mode() is None
        and not torch._C._are_functorch_transforms_active()
    )


def _first_slots(columns: int, pattern: NM | TransposableNM, index_bytes: int) -> Tensor:
    """The index of one row that keeps the first entries of each group."""
    place = torch.arange(8 * index_bytes)
    bits = (place % pattern.block < pattern.keep) & (place < columns)
    return (bits.view(-1, 8).long() << torch.arange(8)).sum(1).to(torch.uint8)
