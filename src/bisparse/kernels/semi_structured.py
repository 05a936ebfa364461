"""Linear layers on sparse tensor cores: 2:4t in forward and input gradient, 2:4 in the forward.

    y = x W^T + b            sparse
    dL/dx = dL/dy W          sparse for 2:4t, where W^T is 2:4 as well; dense for row-wise 2:4
    dL/dW = dL/dy^T x        dense: it says which masked weight should come back

The weight stays an ordinary dense parameter, so optimizers, checkpoints and mask rules see nothing new. Its pattern is
packed when the mask changes, its values at every forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bisparse.kernels import semi_structured_ops as ops
from bisparse.kernels.semi_structured_limits import choose_backend
from bisparse.masks.solve import solve_mask
from bisparse.pattern import NM, TransposableNM

__all__ = ["Packing", "complete_mask", "pack_mask", "semi_structured_linear"]


@dataclass(frozen=True, slots=True)
class Packing:
    """A 2:4 mask in the form that the kernels read.

    Attributes:
        backend: one of :data:`bisparse.kernels.semi_structured_limits.BACKENDS`.
        both_ways: the transpose is 2:4 as well.
        mask: boolean (R, C); two entries are kept in every group of four.
        meta: CUTLASS's pattern of W, else empty.
        meta_t: CUTLASS's pattern of the transpose, else empty.
        threads: which entries each thread of CUTLASS's packing keeps, else empty.
    """

    backend: str
    both_ways: bool
    mask: Tensor
    meta: Tensor
    meta_t: Tensor
    threads: Tensor


def pack_mask(
    mask: Tensor, dtype: torch.dtype, *, both_ways: bool = True, backend: str | None = None
) -> Packing:
    """Pack a mask, so that values can be packed by it again and again.

    The mask itself is packed, not a weight: an entry that is kept but happens to be zero keeps its place.

    Args:
        mask: boolean (R, C) on a CUDA device, two of every four in each row (``both_ways``: and each column of every
            4 x 4 tile). Not checked here: see :func:`complete_mask`.
        dtype: float16 or bfloat16, the type of the products.
        both_ways: pack the transpose, too.
        backend: by default the first that fits.

    Raises:
        ValueError: no backend takes this shape, type and device; the message names each reason.
    """
    if backend is None:
        backend, reason = choose_backend(mask.shape, dtype, mask.device, both_ways=both_ways)
        if backend is None:
            raise ValueError(f"this layer stays dense: {reason}")
    if backend == "cutlass":
        meta, meta_t, threads = ops.pattern(mask.to(dtype))
        return Packing(backend, both_ways, mask, meta, meta_t, threads)
    nothing = [torch.empty(0, dtype=dtype, device=mask.device) for _ in range(3)]
    return Packing(backend, both_ways, mask, *nothing)


def complete_mask(kept: Tensor, pattern: NM | TransposableNM) -> Tensor:
    """A mask with exactly two of every four that keeps all of ``kept`` (R, C).

    Raises:
        ValueError: there is none.
    """
    rows, columns = kept.shape
    lines = [kept.reshape(rows, columns // 4, 4).sum(-1)]
    if isinstance(pattern, TransposableNM):
        lines.append(kept.reshape(rows // 4, 4, columns).sum(1))
    if all(bool((sums == 2).all()) for sums in lines):
        return kept
    found = solve_mask(kept.to(torch.float16), pattern)
    if found.objective < int(kept.count_nonzero()):
        raise ValueError(
            f"the non-zeros do not fit into {pattern}: prune the weight first, for example with "
            f"bisparse.prune(model, pattern={str(pattern)!r})"
        )
    return found.mask


class _Product(torch.autograd.Function):
    """y = x W^T + b with x (T, C), W (R, C) and its packing, tensor by tensor; all values of one type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, meta: Tensor, meta_t: Tensor,
        threads: Tensor, backend: str, both_ways: bool,
    ) -> Tensor:  # fmt: skip
        ctx.shape, ctx.backend, ctx.both_ways = weight.shape, backend, both_ways
        y: Tensor
        if backend == "compress":
            ctx.save_for_backward(x, weight, mask)
            y = ops.compressed_product(x, weight, mask, bias, False)
            return y
        packed, packed_t = ops.values(weight, mask, threads, backend)
        ctx.save_for_backward(x, packed_t, meta_t)
        y = ops.product(x, packed, meta, bias, weight.shape[0], backend)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, held, held_too = ctx.saved_tensors
        grad = grads[0].contiguous()
        wants_x, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        of_x = None
        if wants_x and ctx.backend != "compress":
            of_x = ops.product(grad, held, held_too, None, ctx.shape[1], ctx.backend)
        elif wants_x and ctx.both_ways:
            of_x = ops.compressed_product(grad, held, held_too, None, True)
        elif wants_x:
            of_x = grad @ (held * held_too)
        of_weight = grad.t() @ x if wants_weight else None
        of_bias = grad.sum(0, dtype=torch.float32).to(grad.dtype) if wants_bias else None
        return of_x, of_weight, of_bias, *[None] * 6


def semi_structured_linear(x: Tensor, weight: Tensor, packing: Packing, bias: Tensor | None = None) -> Tensor:
    """Multiply x (..., C) by the transposed masked weight (R, C) and add the bias: (..., R).

    Entries that the packing drops count as zero whatever the weight holds there; the weight's gradient is dense.
    Under autocast everything is cast to its type first.

    Raises:
        TypeError: input and weight differ in type and there is no autocast, or the type is not the kernels'.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if x.dtype != weight.dtype or x.dtype not in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"input is {x.dtype}, weight {weight.dtype}: 2:4 products need both in float16 or bfloat16; "
            "use torch.autocast or convert the model"
        )
    p, flat = packing, x.reshape(-1, x.shape[-1])
    y: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        flat, weight, bias, p.mask, p.meta, p.meta_t, p.threads, p.backend, p.both_ways
    )
    return y.reshape(*x.shape[:-1], weight.shape[0])
