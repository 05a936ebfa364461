"""From what a user calls scores to the (batch, rows, columns) tensor that the solvers read."""

from __future__ import annotations

import warnings
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Scores", "as_scores", "first_invalid"]

Scores: TypeAlias = Tensor | npt.NDArray[np.generic]

_NATIVE = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
}


def as_scores(scores: Scores, *, stay: bool = False) -> Tensor:
    """View scores as a CPU tensor (batch, rows, columns) of a dtype that the native core reads.

    Nothing is copied, whatever the strides, unless the tensor lives on another device (which ``stay`` lets it),
    its dtype is not native (float8 becomes float32, unsigned 16 to 64 bits become wider types) or its leading
    dimensions do not merge.

    Raises:
        TypeError: neither a tensor nor an array, or complex, quantised, sparse or meta.
        ValueError: fewer than two dimensions.
    """
    tensor = _as_tensor(scores)
    if tensor.ndim < 2:
        raise ValueError(
            f"scores have shape {tuple(tensor.shape)}: a mask needs at least two dimensions (..., rows, columns); "
            "rows are output features, columns input features; reshape the scores"
        )
    tensor = tensor.detach() if stay else tensor.detach().cpu()
    return _native(tensor).unsqueeze(0).flatten(0, -3)


def first_invalid(scores: Tensor, *, signed: bool) -> str:
    """Describe the first entry that no solver may accept: a NaN, an infinity or, unless ``signed``, a negative."""
    values = scores.double()
    bad = ~values.isfinite()
    if not signed:
        bad |= values < 0
    position = tuple(int(i) for i in torch.nonzero(bad)[0])
    value = float(values[position])
    where = f"scores[{', '.join(map(str, position))}] = {value}"
    if value < 0 and value != float("-inf"):
        return f"{where}: scores must not be negative; signed scores: pass scores.abs() or magnitude=True"
    return f"{where}: scores must be finite; find where it arose, or replace it with torch.nan_to_num"


def _as_tensor(scores: Scores) -> Tensor:
    if isinstance(scores, np.ndarray):
        return _from_numpy(scores)
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores must be a torch tensor or a numpy array, got {type(scores).__name__}")
    if scores.layout != torch.strided or scores.is_quantized or scores.is_meta or scores.is_complex():
        raise TypeError(
            f"scores are {scores.layout}, {scores.dtype}, on {scores.device}: a mask needs dense real numbers; "
            "use .to_dense(), .dequantize() or load the weights first"
        )
    return scores


def _from_numpy(array: npt.NDArray[np.generic]) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"scores have dtype {array.dtype}: a mask needs real numbers")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _native(tensor: Tensor) -> Tensor:
    if tensor.dtype in _NATIVE:
        return tensor
    if tensor.dtype == torch.bool:
        return tensor.view(torch.uint8)
    if tensor.dtype.is_floating_point:
        return tensor.float()
    return tensor.double() if tensor.dtype == torch.uint64 else tensor.long()
