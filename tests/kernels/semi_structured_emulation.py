"""PyTorch's 2:4 kernels in plain tensor operations on the CPU, for tests only.

CUTLASS's pattern is packed in its true layout (PyTorch's own conversions do that anywhere). What the thread masks and
cuSPARSELt's metadata look like inside is not known: here they hold the mask's bits, in the same number of bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from bisparse.kernels import semi_structured_ops as ops

BITS = 1 << torch.arange(8)


def install() -> None:
    """Give the operators kernels for the CPU."""
    ops.pattern.register_kernel("cpu")(pattern)
    ops.values.register_kernel("cpu")(values)
    ops.product.register_kernel("cpu")(product)
    ops.compressed_product.register_kernel("cpu")(compressed_product)


def to_bits(mask: Tensor) -> Tensor:
    """(..., 8 n) booleans to (..., n) bytes."""
    return (mask.unflatten(-1, (-1, 8)) * BITS).sum(-1).to(torch.uint8)


def from_bits(words: Tensor) -> Tensor:
    return (words.unsqueeze(-1).long() & BITS).bool().flatten(-2)


def pattern(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kept = mask != 0
    assert bool((kept.unflatten(-1, (-1, 4)).sum(-1) == 2).all())
    assert bool((kept.t().unflatten(-1, (-1, 4)).sum(-1) == 2).all())
    blocks = kept.unflatten(0, (-1, 8)).unflatten(2, (-1, 8)).transpose(1, 2)  # (rows / 8, columns / 8, 8, 8)
    return cutlass_meta(mask), cutlass_meta(mask.t().contiguous()), to_bits(blocks).squeeze(-1)


def cutlass_meta(mask: Tensor) -> Tensor:
    _, meta = sparse_semi_structured_from_dense_cutlass(mask)
    rows, columns = mask.shape
    return meta.reshape(columns // 32, rows, 2).permute(1, 2, 0)


def values(weight: Tensor, mask: Tensor, threads: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    if backend == "cutlass":
        blocks = from_bits(threads.unsqueeze(-1))  # (rows / 8, columns / 8, 8, 8)
        mask = blocks.transpose(1, 2).reshape(weight.shape)
        return gathered(weight, mask), gathered(weight.t(), mask.t())
    return with_bits(weight, mask), with_bits(weight.t(), mask.t())


def gathered(weight: Tensor, mask: Tensor) -> Tensor:
    return weight[mask].view(weight.shape[0], -1)


def with_bits(weight: Tensor, mask: Tensor) -> Tensor:
    words = to_bits(mask.contiguous()).contiguous().view(torch.int16).view(weight.dtype)
    return torch.cat([gathered(weight, mask), words], 1)


def product(x: Tensor, packed: Tensor, meta: Tensor, bias: Tensor | None, rows: int, backend: str) -> Tensor:
    if backend == "cutlass":
        flat = meta.permute(2, 0, 1).reshape(rows, -1)
        dense = sparse_semi_structured_to_dense_cutlass(packed, flat)
    else:
        columns = packed.shape[1] * 16 // 9
        mask = from_bits(packed[:, columns // 2 :].contiguous().view(torch.int16).view(torch.uint8))
        dense = packed.new_zeros(rows, columns)
        dense[mask] = packed[:, : columns // 2].reshape(-1)
    return torch.nn.functional.linear(x, dense, bias)


def compressed_product(
    x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, transposed: bool
) -> Tensor:
    kept = weight * mask
    return torch.nn.functional.linear(x, kept.t() if transposed else kept, bias)
