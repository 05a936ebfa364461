"""Outputs of a model as one tensor, and calls cut into smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bisparse.compress.calibration import Call

__all__ = ["output_tensor", "real_outputs", "split_call", "valid_outputs"]


def output_tensor(output: Any) -> Tensor:
    """The tensor that stands for a model's output: itself, ``.logits``, ``.last_hidden_state``, or the first
    entry.

    Raises:
        TypeError: there is no tensor in it.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "last_hidden_state", "sample"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if isinstance(output, (tuple, list)) and output:
        return output_tensor(output[0])
    if isinstance(output, Mapping) and output:
        return output_tensor(next(iter(output.values())))
    raise TypeError(
        f"no tensor in a model output of type {type(output).__name__}: wrap the model to return one"
    )


def valid_outputs(output: Tensor, valid: Tensor | None) -> Tensor:
    """Outputs of real tokens only, where the output has a token axis like ``valid``'s."""
    return output if valid is None or output.shape[:2] != valid.shape else output[valid]


def real_outputs(call: Call, output: Any) -> Tensor:
    """What stands for a model's output on a call: of real tokens, in float32 or better.

    Raises:
        TypeError: there is no tensor in it.
    """
    found = valid_outputs(output_tensor(output), call.valid)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _length(call: Call) -> int | None:
    """Common first dimension of all tensors of a call; ``None`` where it has none."""
    tensors = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor)]
    lengths = {len(tensor) if tensor.dim() else 0 for tensor in tensors}
    return lengths.pop() if len(lengths) == 1 else None


def split_call(call: Call, size: int) -> Iterator[Call]:
    """Cut a call into calls of at most ``size`` samples; a call that cannot be cut is yielded whole."""
    length = _length(call)
    if length is None or length <= size:
        yield call
        return

    def part(value: Any, first: int) -> Any:
        return value[first : first + size] if isinstance(value, Tensor) else value

    for first in range(0, length, size):
        yield Call(
            tuple(part(value, first) for value in call.args),
            {name: part(value, first) for name, value in call.kwargs.items()},
            part(call.valid, first),
        )
