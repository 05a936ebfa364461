"""2:4 packing and products of PyTorch's kernels as operators that trace and compile.

``bisparse::semi_structured_pattern``  a mask packed for CUTLASS, in both directions
``bisparse::semi_structured_values``   values of a weight packed by such a pattern, in both directions
``bisparse::semi_structured_product``  y = x W^T + b with the packed W
``bisparse::compressed_product``       the same from a masked W, packed by cuSPARSELt on the way

The backends are those of :mod:`bisparse.kernels.semi_structured_limits`. Kernels exist for CUDA; shapes are known
everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["compressed_product", "pattern", "product", "values"]

# PyTorch's default for the tile kernel ranks signed values. On a tile that is already 2:4 in both directions, ranking
# magnitudes keeps exactly its entries.
ALGORITHM = "largest_abs_values_greedy"
_TOKENS = 8  # the dense side must be a multiple of this


@torch.library.custom_op("bisparse::semi_structured_pattern", mutates_args=(), device_types="cuda")
def pattern(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(meta, meta_t, threads) of a 2:4t mask (R, C) given as zeros and ones of the products' type.

    ``threads`` says which entries are kept, in the layout that ``values`` reads.
    """
    _, meta, _, meta_t, threads = torch._sparse_semi_structured_tile(mask, ALGORITHM, use_cutlass=True)
    return meta, meta_t, threads


@pattern.register_fake
def _(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = mask.shape
    threads = mask.new_empty(rows // 8, columns // 8, 8, dtype=torch.uint8)
    return _meta(mask, rows, columns), _meta(mask, columns, rows), threads


def _meta(like: Tensor, rows: int, columns: int) -> Tensor:
    return like.new_empty(columns // 32, rows, 2, dtype=torch.int16).permute(1, 2, 0)


@torch.library.custom_op("bisparse::semi_structured_values", mutates_args=(), device_types="cuda")
def values(weight: Tensor, mask: Tensor, threads: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Packed values of a weight (R, C) and of its transpose.

    CUTLASS gathers them by the pattern that ``threads`` holds. cuSPARSELt keeps the pattern among the values: there the
    masked weight is packed afresh.
    """
    if backend == "cutlass":
        packed, packed_t = torch._sparse_semi_structured_apply(weight, threads)
        return packed, packed_t
    rows, columns = weight.shape
    packed, _, packed_t, _, _ = torch._sparse_semi_structured_tile(
        weight * mask, ALGORITHM, use_cutlass=False
    )
    return packed.view(rows, -1), packed_t.view(columns, -1)


@values.register_fake
def _(weight: Tensor, mask: Tensor, threads: Tensor, backend: str) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    rows, columns = weight.shape
    eighths = 4 if backend == "cutlass" else 4.5  # with the pattern: a bit per entry of 16 bits
    return weight.new_empty(rows, int(columns * eighths) // 8), weight.new_empty(
        columns, int(rows * eighths) // 8
    )


@torch.library.custom_op("bisparse::semi_structured_product", mutates_args=(), device_types="cuda")
def product(x: Tensor, packed: Tensor, meta: Tensor, bias: Tensor | None, rows: int, backend: str) -> Tensor:
    """Multiply x (T, C) by a packed W (R, C), transposed: (T, R), contiguous. T is padded to a multiple of 8."""
    tokens = x.shape[0]
    dense = _padded(x)
    if backend == "cutlass":
        if bias is None:
            y = torch._sparse_semi_structured_mm(packed, meta, dense.t())
        else:
            y = torch._sparse_semi_structured_addmm(bias, packed, meta, dense.t())
        return y[:rows, :tokens].t().contiguous()
    return _cut(torch._cslt_sparse_mm(packed, dense.t(), bias=bias, transpose_result=True), tokens)


@product.register_fake
def _(x: Tensor, packed: Tensor, meta: Tensor, bias: Tensor | None, rows: int, backend: str) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape[0], rows)


@torch.library.custom_op("bisparse::compressed_product", mutates_args=(), device_types="cuda")
def compressed_product(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, transposed: bool
) -> Tensor:
    """Multiply x (T, C) by the masked W (R, C), transposed: (T, R); or, ``transposed``, x (T, R) by W: (T, C)."""
    kept = weight * mask
    packed = torch._cslt_compress(kept.t().contiguous() if transposed else kept)
    return _cut(torch._cslt_sparse_mm(packed, _padded(x).t(), bias=bias, transpose_result=True), x.shape[0])


@compressed_product.register_fake
def _(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape[0], weight.shape[1 if transposed else 0])


def _padded(x: Tensor) -> Tensor:
    missing = -x.shape[0] % _TOKENS
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


def _cut(y: Tensor, tokens: int) -> Tensor:
    """Without the rows of padding, contiguous."""
    return y[:tokens].contiguous()
