"""Products with packed matrices on the CPU: the checked way into the native core."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from bisparse import _core
from bisparse.kernels.packed import free_bytes, packed_sizes

__all__ = ["check_parts", "multiply", "multiply_channels", "multiply_transposed", "value_gradient"]

_Matrix: TypeAlias = tuple[int, bool, int, int, int, int, int]


def multiply(
    x: Tensor,
    values: Tensor,
    index: Tensor,
    bias: Tensor | None,
    columns: int,
    keep: int,
    block: int,
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """``x @ W.T + bias`` for a packed W (rows, columns), without making W.

    Args:
        x: (..., columns), float32 or bfloat16, CPU.
        values: (rows, slots), float32 or bfloat16; see :class:`bisparse.kernels.PackedMatrix`.
        index: (rows, index_bytes) uint8. Its bits are trusted: check data from outside first (``PackedMatrix.check``).
        bias: (rows) or ``None``.
        columns: of W.
        keep: kept entries of each group.
        block: columns of a group.
        threads: default: PyTorch's.
        instruction_set: one of ``_core.product_instruction_sets()``; default: the fastest.

    Returns:
        (..., rows) of the dtype of ``x``. Sums run in float32; the bits do not depend on the number of threads, but
        do on the instruction set, by rounding.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    rows = check_parts(values, index, columns, keep, block)
    flat, bias = _activations("x", x, columns), _checked_bias(bias, rows)
    output = flat.new_empty((*x.shape[:-1], rows))  # not a view: an activation may change it in place
    matrix = _matrix(values, index, columns, keep, block)
    _product(matrix, flat, flat.shape[0], bias, output, threads, instruction_set)
    return output


def multiply_channels(
    x: Tensor,
    values: Tensor,
    index: Tensor,
    bias: Tensor | None,
    columns: int,
    keep: int,
    block: int,
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """``W @ x + bias`` for activations whose features come first, as in convolutions: no transposed copy is made.

    Args:
        x: (images, columns, places), float32 or bfloat16, CPU.
        values: see :func:`multiply`, as for the other arguments.
        index: its bits.
        bias: (rows) or ``None``.
        columns: of W.
        keep: kept entries of each group.
        block: columns of a group.
        threads: default: PyTorch's.
        instruction_set: default: the fastest.

    Returns:
        (images, rows, places) of the dtype of ``x``.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    rows = check_parts(values, index, columns, keep, block)
    _check_float("x", x)
    if x.dim() != 3 or x.shape[1] != columns:
        raise ValueError(f"x of shape {tuple(x.shape)} is not (images, {columns}, places)")
    x, bias = x.contiguous(), _checked_bias(bias, rows)
    output = x.new_empty((x.shape[0], rows, x.shape[2]))
    matrix = _matrix(values, index, columns, keep, block)
    for image, result in zip(x, output, strict=True):
        _product(matrix, image, x.shape[2], bias, result, threads, instruction_set, channels_first=True)
    return output


def multiply_transposed(
    y: Tensor,
    values: Tensor,
    index: Tensor,
    columns: int,
    keep: int,
    block: int,
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """``y @ W`` for a packed W (rows, columns), from the same storage as ``multiply``.

    Args:
        y: (..., rows), float32 or bfloat16, CPU.
        values: see :func:`multiply`, as for the other arguments.
        index: its bits.
        columns: of W.
        keep: kept entries of each group.
        block: columns of a group.
        threads: default: PyTorch's.
        instruction_set: default: the fastest.

    Returns:
        (..., columns) of the dtype of ``y``.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    rows = check_parts(values, index, columns, keep, block)
    flat = _activations("y", y, rows)
    output = flat.new_empty((*y.shape[:-1], columns))
    matrix = _matrix(values, index, columns, keep, block)
    _product(matrix, flat, flat.shape[0], None, output, threads, instruction_set, transposed=True)
    return output


def value_gradient(
    y: Tensor,
    x: Tensor,
    values: Tensor,
    index: Tensor,
    free: Tensor | None,
    columns: int,
    keep: int,
    block: int,
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """The kept entries of ``y.T @ x``: the gradient of the values, with no tensor of the dense shape.

    Args:
        y: (..., rows): gradient of the output of :func:`multiply`.
        x: (..., columns): its input.
        values: gives sizes and dtype.
        index: see :func:`multiply`.
        free: slots that learn nothing, or ``None``; see :class:`bisparse.kernels.PackedMatrix`.
        columns: of W.
        keep: kept entries of each group.
        block: columns of a group.
        threads: default: PyTorch's.
        instruction_set: default: the fastest.

    Returns:
        (rows, slots) of the dtype of ``values``; sums run in float32.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    rows = check_parts(values, index, columns, keep, block)
    flat_y, flat_x = _activations("y", y, rows), _activations("x", x, columns)
    if flat_x.shape[0] != flat_y.shape[0]:
        raise ValueError(f"x {tuple(x.shape)} and y {tuple(y.shape)} differ in their batch")
    if free is not None and (free.shape != (rows, free_bytes(values.shape[1])) or free.dtype != torch.uint8):
        raise ValueError(
            f"free slots of shape {tuple(free.shape)} do not belong to {tuple(values.shape)} values"
        )
    kept_free = None if free is None else free.contiguous()
    gradient = torch.empty(values.shape, dtype=torch.float32)
    _core.packed_gradient(
        _matrix(values, index, columns, keep, block),
        _place(flat_y),
        _place(flat_x),
        flat_x.shape[0],
        0 if kept_free is None else kept_free.data_ptr(),
        gradient.data_ptr(),
        torch.get_num_threads() if threads is None else threads,
        instruction_set,
    )
    return gradient.to(values.dtype)


def check_parts(values: Tensor, index: Tensor, columns: int, keep: int, block: int) -> int:
    """Refuse parts of wrong size, dtype, device or layout.

    Returns:
        The number of rows.

    Raises:
        ValueError: see above; the message names the rule.
    """
    slots, index_bytes = packed_sizes(columns, keep, block)
    if values.dim() != 2 or values.shape[1] != slots or index.shape != (values.shape[0], index_bytes):
        raise ValueError(
            f"values {tuple(values.shape)} and index {tuple(index.shape)} do not belong to {columns} columns packed "
            f"{keep}:{block}: these need (rows, {slots}) and (rows, {index_bytes})"
        )
    if index.dtype != torch.uint8:
        raise ValueError(f"the index must be uint8, got {index.dtype}")
    _check_float("values", values)
    if not (values.is_contiguous() and index.is_contiguous()):
        raise ValueError("values and index must be contiguous: call .contiguous() on them")
    if index.device.type != "cpu":
        raise ValueError(f"the index is on {index.device}: packed products run on the CPU")
    return values.shape[0]


def _check_float(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"packed products take float32 and bfloat16, {name} is {tensor.dtype}: convert it with .to(torch.bfloat16) "
            "or .float()"
        )
    if tensor.device.type != "cpu":
        raise ValueError(f"packed products run on the CPU, {name} is on {tensor.device}: move it with .cpu()")


def _activations(name: str, tensor: Tensor, features: int) -> Tensor:
    """The tensor as a contiguous (batch, features) matrix."""
    _check_float(name, tensor)
    if tensor.dim() == 0 or tensor.shape[-1] != features:
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} does not end in the {features} features of the matrix: pass "
            f"(..., {features})"
        )
    flat = tensor if tensor.dim() == 2 else tensor.reshape(tensor.numel() // max(features, 1), features)
    return flat.contiguous()


def _checked_bias(bias: Tensor | None, rows: int) -> Tensor | None:
    if bias is None:
        return None
    _check_float("bias", bias)
    if bias.shape != (rows,):
        raise ValueError(f"a bias of shape {tuple(bias.shape)} does not fit {rows} outputs")
    return bias.contiguous()


def _place(tensor: Tensor) -> tuple[int, bool]:
    return tensor.data_ptr(), tensor.dtype == torch.bfloat16


def _product(
    matrix: _Matrix,
    x: Tensor,
    batch: int,
    bias: Tensor | None,
    output: Tensor,
    threads: int | None,
    instruction_set: str | None,
    *,
    transposed: bool = False,
    channels_first: bool = False,
) -> None:
    """Hand checked, contiguous parts to the core, which fills ``output``."""
    _core.packed_product(
        matrix,
        _place(x),
        batch,
        (0, False) if bias is None else _place(bias),
        _place(output),
        transposed,
        channels_first,
        torch.get_num_threads() if threads is None else threads,
        instruction_set,
    )


def _matrix(values: Tensor, index: Tensor, columns: int, keep: int, block: int) -> _Matrix:
    bf16 = values.dtype == torch.bfloat16
    return values.data_ptr(), bf16, index.data_ptr(), values.shape[0], columns, keep, block
