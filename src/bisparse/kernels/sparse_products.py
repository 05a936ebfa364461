"""Products with sparse matrices: the checked way to the native core, and to PyTorch's operators on other devices."""

from __future__ import annotations

import torch
from torch import Tensor

from bisparse import _core
from bisparse.kernels.sparse_torch import torch_gradient, torch_multiply

__all__ = ["sparse_gradient", "sparse_multiply"]

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
NONE = (0, 4)


def sparse_multiply(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    places: Tensor,
    width: int,
    perm: Tensor | None = None,
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """``x @ W.T + bias`` for a sparse W (rows, width) in either of its orders.

    With ``crow, col`` this is the product of a layer; with ``ccol, row_t`` and ``perm`` it is that with the transposed
    matrix, the gradient of a layer's input. Cost: ``nnz * batch``, and the activations twice; no dense tensor.

    Args:
        x: (..., width), float32, bfloat16 or float64.
        values: (nnz) on the same device; float64 exactly where ``x`` is.
        bias: (rows) or ``None``.
        starts: (rows + 1); see :class:`bisparse.kernels.SparseIndex`. An index is trusted: check data from outside
            first.
        places: (nnz): the column of each entry.
        width: columns of W.
        perm: (nnz): where in ``values`` each entry has its value; default: in its own place.
        threads: default: PyTorch's.
        instruction_set: one of ``_core.sparse_instruction_sets()``; default: the fastest.

    Returns:
        (..., rows) of the dtype of ``x``. Sums run in float32 (float64 for float64); on the CPU the bits do not depend
        on the number of threads, but do on the instruction set, by rounding.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    flat = _activations("x", x, width, values)
    _check_index(values, starts, places, perm)
    rows = starts.numel() - 1
    if bias is not None and (bias.shape != (rows,) or not _together(bias, values) or bias.device != x.device):
        raise ValueError(
            f"a bias {tuple(bias.shape)} of {bias.dtype} does not belong to {rows} rows of {values.dtype}"
        )
    y = flat.new_empty((*x.shape[:-1], rows))  # not a view: an activation may change it in place
    if values.device.type == "cpu":
        kept_bias = None if bias is None else bias.contiguous()
        _core.sparse_product(
            _order(starts, places, perm, width),
            _numbers(values),
            _numbers(flat),
            len(flat),
            NONE if kept_bias is None else _numbers(kept_bias),
            y.data_ptr(),
            torch.get_num_threads() if threads is None else threads,
            instruction_set,
        )
    else:
        product = torch_multiply(flat, values, starts, places, perm)
        y.view(len(flat), rows).copy_(product if bias is None else product + bias.to(product.dtype))
    return y


def sparse_gradient(
    y: Tensor,
    x: Tensor,
    values: Tensor,
    starts: Tensor,
    places: Tensor,
    *,
    threads: int | None = None,
    instruction_set: str | None = None,
) -> Tensor:
    """The entries of ``y.T @ x`` at the non-zeros; no tensor of the dense shape is made.

    Args:
        y: (..., rows): gradient of the output of :func:`sparse_multiply`.
        x: (..., width): its input; an index is trusted, so that the width has to be that of the matrix.
        values: (nnz): gives the dtype.
        starts: (rows + 1), order by rows.
        places: (nnz).
        threads: default: PyTorch's.
        instruction_set: default: the fastest.

    Returns:
        (nnz) of the dtype of ``values``; sums run in float32 (float64 for float64).

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    flat_y = _activations("y", y, starts.numel() - 1, values)
    flat_x = _activations("x", x, x.shape[-1] if x.dim() else 0, values)
    if len(flat_x) != len(flat_y):
        raise ValueError(f"x {tuple(x.shape)} and y {tuple(y.shape)} differ in their batch")
    _check_index(values, starts, places, None)
    if values.device.type != "cpu":
        return torch_gradient(flat_y, flat_x, values, starts, places)
    gradient = torch.empty(values.shape, dtype=torch.promote_types(values.dtype, torch.float32))
    _core.sparse_gradient(
        _order(starts, places, None, flat_x.shape[1]),
        _numbers(flat_x),
        _numbers(flat_y),
        len(flat_x),
        gradient.data_ptr(),
        torch.get_num_threads() if threads is None else threads,
        instruction_set,
    )
    return gradient.to(values.dtype)


def _numbers(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.element_size()


def _order(starts: Tensor, places: Tensor, perm: Tensor | None, width: int) -> tuple[int, int, int, int, int]:
    at = 0 if perm is None else perm.data_ptr()
    return starts.data_ptr(), places.data_ptr(), at, starts.numel() - 1, width


def _together(one: Tensor, other: Tensor) -> bool:
    """Whether both are of a supported dtype, and float64 both or neither."""
    return (
        one.dtype in DTYPES
        and other.dtype in DTYPES
        and (one.dtype == torch.float64) == (other.dtype == torch.float64)
    )


def _activations(name: str, tensor: Tensor, features: int, values: Tensor) -> Tensor:
    """The tensor as a contiguous (batch, features) matrix."""
    for what, each in ((name, tensor), ("values", values)):
        if each.dtype not in DTYPES:
            raise ValueError(
                f"sparse products take float32, bfloat16 and float64, {what} is {each.dtype}: convert it with "
                ".to(torch.bfloat16) or .float()"
            )
    if not _together(tensor, values):
        raise ValueError(
            f"{name} is {tensor.dtype} and the values are {values.dtype}: convert one with .to(dtype)"
        )
    if tensor.device != values.device:
        raise ValueError(f"{name} is on {tensor.device}, the values on {values.device}: move one of them")
    if tensor.dim() == 0 or tensor.shape[-1] != features:
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} does not end in the {features} features of the matrix"
        )
    return tensor.reshape(tensor.numel() // max(features, 1), features).contiguous()


def _check_index(values: Tensor, starts: Tensor, places: Tensor, perm: Tensor | None) -> None:
    entries = [("places", places)] if perm is None else [("places", places), ("perm", perm)]
    for name, part in [("starts", starts), *entries]:
        if part.dtype != torch.int32 or not part.is_contiguous() or part.device != values.device:
            raise ValueError(f"{name} must be contiguous int32 on {values.device}, got {part.dtype}")
    if values.dim() != 1 or any(part.shape != values.shape for _, part in entries):
        raise ValueError(
            f"{tuple(values.shape)} values do not belong to an index of {tuple(places.shape)} places"
        )
    if not values.is_contiguous():
        raise ValueError("the values must be contiguous: call .contiguous() on them")
