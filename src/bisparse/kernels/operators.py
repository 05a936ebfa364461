"""Packed products as PyTorch operators: they compile, trace and differentiate.

``torch.ops.bisparse.packed_linear``      y = x W^T + b
``torch.ops.bisparse.packed_transposed``  x = y W
``torch.ops.bisparse.packed_channels``    y = W x + b for (images, features, places)
``torch.ops.bisparse.packed_gradient``    the kept entries of y^T x

All are differentiable, in the activations and in the kept values, as often as wanted.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from bisparse.kernels.forward_mode import refuse_forward_mode
from bisparse.kernels.products import multiply, multiply_channels, multiply_transposed, value_gradient

__all__ = [
    "packed_channels",
    "packed_gradient",
    "packed_linear",
    "packed_transposed",
]

_LIBRARY: Any = torch.library.Library("bisparse", "DEF")  # type: ignore[no-untyped-call]
_MATRIX = "Tensor values, Tensor index, Tensor? free"
_SIZES = "int columns, int keep, int block"
_LIBRARY.define(f"packed_linear(Tensor x, {_MATRIX}, Tensor? bias, {_SIZES}) -> Tensor")
_LIBRARY.define(f"packed_channels(Tensor x, {_MATRIX}, Tensor? bias, {_SIZES}) -> Tensor")
_LIBRARY.define(f"packed_transposed(Tensor y, {_MATRIX}, {_SIZES}) -> Tensor")
_LIBRARY.define(f"packed_gradient(Tensor y, Tensor x, {_MATRIX}, {_SIZES}) -> Tensor")

packed_linear = torch.ops.bisparse.packed_linear.default
packed_channels = torch.ops.bisparse.packed_channels.default
packed_transposed = torch.ops.bisparse.packed_transposed.default
packed_gradient = torch.ops.bisparse.packed_gradient.default

_Sizes: TypeAlias = tuple[int, int, int]


def _linear(
    x: Tensor, values: Tensor, index: Tensor, _free: Tensor | None, bias: Tensor | None, *sizes: int
) -> Tensor:
    return multiply(x, values, index, bias, *sizes)


def _channels(
    x: Tensor, values: Tensor, index: Tensor, _free: Tensor | None, bias: Tensor | None, *sizes: int
) -> Tensor:
    return multiply_channels(x, values, index, bias, *sizes)


def _transposed(y: Tensor, values: Tensor, index: Tensor, _free: Tensor | None, *sizes: int) -> Tensor:
    return multiply_transposed(y, values, index, *sizes)


def _fake_linear(x: Tensor, values: Tensor, *_: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], values.shape[0]))


def _fake_channels(x: Tensor, values: Tensor, *_: object) -> Tensor:
    return x.new_empty((x.shape[0], values.shape[0], x.shape[2]))


def _fake_transposed(
    y: Tensor, _values: Tensor, _index: Tensor, _free: Tensor | None, columns: int, *_: int
) -> Tensor:
    return y.new_empty((*y.shape[:-1], columns))


def _fake_gradient(_y: Tensor, _x: Tensor, values: Tensor, *_: object) -> Tensor:
    return torch.empty_like(values)


def _refuse(grad: Tensor) -> None:
    """A gradient may carry a tangent even where nothing in the forward pass did."""
    refuse_forward_mode("a packed layer", "bisparse.to_dense(model)", grad)


def _save_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, values, index, free, bias, *sizes = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, values, index, free)
    ctx.sizes, ctx.bias_dtype = tuple(sizes), None if bias is None else bias.dtype


def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _refuse(grad)
    x, values, index, free = ctx.saved_tensors
    wants_x, wants_values, _, _, wants_bias, *_ = ctx.needs_input_grad
    of_x = packed_transposed(grad, values, index, free, *ctx.sizes) if wants_x else None
    of_values = packed_gradient(grad, x, values, index, free, *ctx.sizes) if wants_values else None
    flat = grad.reshape(-1, grad.shape[-1])
    of_bias = flat.sum(0, dtype=torch.float32).to(ctx.bias_dtype) if wants_bias else None
    return of_x, of_values, None, None, of_bias, None, None, None


def _channels_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _refuse(grad)
    x, values, index, free = ctx.saved_tensors
    wants_x, wants_values, _, _, wants_bias, *_ = ctx.needs_input_grad
    turned = grad.transpose(1, 2)  # (images, places, rows)
    of_x = packed_transposed(turned, values, index, free, *ctx.sizes).transpose(1, 2) if wants_x else None
    of_values = (
        packed_gradient(turned, x.transpose(1, 2), values, index, free, *ctx.sizes) if wants_values else None
    )
    of_bias = grad.sum((0, 2), dtype=torch.float32).to(ctx.bias_dtype) if wants_bias else None
    return of_x, of_values, None, None, of_bias, None, None, None


def _save_transposed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    y, values, index, free, *sizes = inputs
    ctx.save_for_backward(y if ctx.needs_input_grad[1] else None, values, index, free)
    ctx.sizes = tuple(sizes)


def _transposed_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _refuse(grad)
    y, values, index, free = ctx.saved_tensors
    wants_y, wants_values, *_ = ctx.needs_input_grad
    of_y = packed_linear(grad, values, index, free, None, *ctx.sizes) if wants_y else None
    of_values = packed_gradient(y, grad, values, index, free, *ctx.sizes) if wants_values else None
    return of_y, of_values, None, None, None, None, None


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    y, x, _, index, free, *sizes = inputs
    ctx.save_for_backward(y, x, index, free)
    ctx.sizes = tuple(sizes)


def _gradient_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _refuse(grad)
    y, x, index, free = ctx.saved_tensors
    grad = grad.contiguous()
    if free is not None:
        learns = (free.unsqueeze(2) >> torch.arange(8, device=free.device)) & 1 == 0
        grad = grad * learns.flatten(1)[:, : grad.shape[1]]
    of_y = packed_linear(x, grad, index, free, None, *ctx.sizes) if ctx.needs_input_grad[0] else None
    of_x = packed_transposed(y, grad, index, free, *ctx.sizes) if ctx.needs_input_grad[1] else None
    return of_y, of_x, None, None, None, None, None, None


_LIBRARY.impl("packed_linear", _linear, "CPU")
_LIBRARY.impl("packed_channels", _channels, "CPU")
_LIBRARY.impl("packed_transposed", _transposed, "CPU")
_LIBRARY.impl("packed_gradient", value_gradient, "CPU")
for _name, _fake in (
    ("linear", _fake_linear),
    ("channels", _fake_channels),
    ("transposed", _fake_transposed),
    ("gradient", _fake_gradient),
):
    torch.library.register_fake(f"bisparse::packed_{_name}", _fake, lib=_LIBRARY)
for _name, _backward, _save in (
    ("linear", _linear_backward, _save_linear),
    ("channels", _channels_backward, _save_linear),
    ("transposed", _transposed_backward, _save_transposed),
    ("gradient", _gradient_backward, _save_gradient),
):
    torch.library.register_autograd(f"bisparse::packed_{_name}", _backward, setup_context=_save, lib=_LIBRARY)
