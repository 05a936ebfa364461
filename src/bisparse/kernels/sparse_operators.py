"""Sparse products as PyTorch operators: they compile, trace and differentiate, as often as wanted.

``torch.ops.bisparse.sparse_linear``      y = x W^T + b
``torch.ops.bisparse.sparse_transposed``  x = y W
``torch.ops.bisparse.sparse_gradient``    the entries of y^T x at the non-zeros of W

The last five arguments of each are the parts of a :class:`bisparse.kernels.SparseIndex`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bisparse.kernels.forward_mode import refuse_forward_mode
from bisparse.kernels.sparse_products import sparse_gradient, sparse_multiply

__all__ = ["sparse_linear_op"]

_LIBRARY: Any = torch.library.Library("bisparse", "FRAGMENT")  # type: ignore[no-untyped-call]
_INDEX = "Tensor crow, Tensor col, Tensor ccol, Tensor row_t, Tensor perm"
_LIBRARY.define(f"sparse_linear(Tensor x, Tensor values, Tensor? bias, {_INDEX}) -> Tensor")
_LIBRARY.define(f"sparse_transposed(Tensor y, Tensor values, {_INDEX}) -> Tensor")
_LIBRARY.define(f"sparse_gradient(Tensor y, Tensor x, Tensor values, {_INDEX}) -> Tensor")

sparse_linear_op = torch.ops.bisparse.sparse_linear.default
_transposed_op = torch.ops.bisparse.sparse_transposed.default
_gradient_op = torch.ops.bisparse.sparse_gradient.default


def _linear(x: Tensor, values: Tensor, bias: Tensor | None, *index: Tensor) -> Tensor:
    crow, col, ccol, _, _ = index
    return sparse_multiply(x, values, bias, crow, col, ccol.numel() - 1)


def _transposed(y: Tensor, values: Tensor, *index: Tensor) -> Tensor:
    crow, _, ccol, row_t, perm = index
    return sparse_multiply(y, values, None, ccol, row_t, crow.numel() - 1, perm)


def _gradient(y: Tensor, x: Tensor, values: Tensor, *index: Tensor) -> Tensor:
    crow, col, ccol, _, _ = index
    if x.dim() == 0 or x.shape[-1] != ccol.numel() - 1:
        raise ValueError(f"x {tuple(x.shape)} does not end in the matrix's {ccol.numel() - 1} columns")
    return sparse_gradient(y, x, values, crow, col)


def _fake_linear(x: Tensor, values: Tensor, bias: Tensor | None, crow: Tensor, *_: Tensor) -> Tensor:  # noqa: ARG001
    return x.new_empty((*x.shape[:-1], crow.shape[0] - 1))


def _fake_transposed(y: Tensor, values: Tensor, *index: Tensor) -> Tensor:  # noqa: ARG001
    return y.new_empty((*y.shape[:-1], index[2].shape[0] - 1))


def _fake_gradient(y: Tensor, x: Tensor, values: Tensor, *_: Tensor) -> Tensor:  # noqa: ARG001
    return torch.empty_like(values)


def _refuse(grad: Tensor) -> None:
    """A gradient may carry a tangent even where nothing in the forward pass did."""
    refuse_forward_mode("SparseLinear", "layer.to_linear()", grad)


def _save_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, values, bias, *index = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, values, *index)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _refuse(grad)
    x, values, *index = ctx.saved_tensors
    wants_x, wants_values, wants_bias, *_ = ctx.needs_input_grad
    of_x = _transposed_op(grad, values, *index) if wants_x else None
    of_values = _gradient_op(grad, x, values, *index) if wants_values else None
    of_bias = _summed(grad).to(ctx.bias_dtype) if wants_bias else None
    return of_x, of_values, of_bias, None, None, None, None, None


def _summed(grad: Tensor) -> Tensor:
    """The sum over all but the last dimension, in float32 at least."""
    wide = torch.promote_types(grad.dtype, torch.float32)
    return grad.reshape(-1, grad.shape[-1]).sum(0, dtype=wide)


def _save_transposed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    y, values, *index = inputs
    ctx.save_for_backward(y if ctx.needs_input_grad[1] else None, values, *index)


def _transposed_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _refuse(grad)
    y, values, *index = ctx.saved_tensors
    wants_y, wants_values, *_ = ctx.needs_input_grad
    of_y = sparse_linear_op(grad, values, None, *index) if wants_y else None
    of_values = _gradient_op(y, grad, values, *index) if wants_values else None
    return of_y, of_values, None, None, None, None, None


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    y, x, _, *index = inputs
    ctx.save_for_backward(y, x, *index)


def _gradient_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _refuse(grad)
    y, x, *index = ctx.saved_tensors
    grad = grad.contiguous()
    of_y = sparse_linear_op(x, grad, None, *index) if ctx.needs_input_grad[0] else None
    of_x = _transposed_op(y, grad, *index) if ctx.needs_input_grad[1] else None
    return of_y, of_x, None, None, None, None, None, None


for _name, _run, _fake, _backward, _save in (
    ("linear", _linear, _fake_linear, _linear_backward, _save_linear),
    ("transposed", _transposed, _fake_transposed, _transposed_backward, _save_transposed),
    ("gradient", _gradient, _fake_gradient, _gradient_backward, _save_gradient),
):
    _LIBRARY.impl(f"sparse_{_name}", _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"bisparse::sparse_{_name}", _fake, lib=_LIBRARY)
    torch.library.register_autograd(f"bisparse::sparse_{_name}", _backward, setup_context=_save, lib=_LIBRARY)
