"""Products with sparse matrices: the checked way to the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from bisparse.kernels.sparse_torch import torch_gradient, torch_multiply

__all__ = ["sparse_gradient", "sparse_multiply"]

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def sparse_multiply(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    starts: Tensor,
    places: Tensor,
    width: int,
    perm: Tensor | None = None,
) -> Tensor:
    """``x @ W.T + bias`` for a sparse W (rows, width) in either of its orders.

    With ``crow, col`` this is the product of a layer; with ``ccol, row_t`` and ``perm`` it is that with the transposed
    matrix, the gradient of a layer's input.

    Args:
        x: (..., width), float32, bfloat16 or float64.
        values: (nnz) on the same device; float64 exactly where ``x`` is.
        bias: (rows) or ``None``.
        starts: (rows + 1); see :class:`bisparse.kernels.SparseIndex`. An index is trusted: check data from outside
            first.
        places: (nnz): the column of each entry.
        width: columns of W.
        perm: (nnz): where in ``values`` each entry has its value; default: in its own place.

    Returns:
        (..., rows) of the dtype of ``x``; sums run in float32 at least.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    flat = _activations("x", x, width, values)
    _check_index(values, starts, places, perm)
    y = torch_multiply(flat, values, starts, places, perm)
    y = y.contiguous() if bias is None else y + bias.to(y.dtype)
    return y.contiguous().view(*x.shape[:-1], starts.numel() - 1)


def sparse_gradient(y: Tensor, x: Tensor, values: Tensor, starts: Tensor, places: Tensor) -> Tensor:
    """The entries of ``y.T @ x`` at the non-zeros; no tensor of the dense shape is made.

    Args:
        y: (..., rows): gradient of the output of :func:`sparse_multiply`.
        x: (..., width): its input.
        values: (nnz): gives the dtype.
        starts: (rows + 1), order by rows.
        places: (nnz).

    Returns:
        (nnz) of the dtype of ``values``; sums run in float32 at least.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    flat_y = _activations("y", y, starts.numel() - 1, values)
    flat_x = _activations("x", x, x.shape[-1] if x.dim() else 0, values)
    if flat_x.shape[0] != flat_y.shape[0]:
        raise ValueError(f"x {tuple(x.shape)} and y {tuple(y.shape)} differ in their batch")
    _check_index(values, starts, places, None)
    return torch_gradient(flat_y, flat_x, values, starts, places)


def _activations(name: str, tensor: Tensor, features: int, values: Tensor) -> Tensor:
    """The tensor as a contiguous (batch, features) matrix."""
    for what, each in ((name, tensor), ("values", values)):
        if each.dtype not in DTYPES:
            raise ValueError(
                f"sparse products take float32, bfloat16 and float64, {what} is {each.dtype}: convert it with "
                ".to(torch.bfloat16) or .float()"
            )
    if (tensor.dtype == torch.float64) != (values.dtype == torch.float64):
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
    parts = {"starts": starts, "places": places} | ({} if perm is None else {"perm": perm})
    for name, part in parts.items():
        if part.dtype != torch.int32 or not part.is_contiguous() or part.device != values.device:
            raise ValueError(f"{name} must be contiguous int32 on {values.device}, got {part.dtype}")
    if values.dim() != 1 or any(part.shape != values.shape for part in parts.values() if part is not starts):
        raise ValueError(
            f"{tuple(values.shape)} values do not belong to an index of {tuple(places.shape)} places"
        )
    if not values.is_contiguous():
        raise ValueError("the values must be contiguous: call .contiguous() on them")
