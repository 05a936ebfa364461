"""Optimizer state when a topology changes: survivors keep theirs, all other entries start anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bisparse.train.sharding import local

__all__ = ["reset_state_"]


def reset_state_(optimizer: Any, parameter: Tensor, carried: Tensor) -> None:
    """Zero every state tensor that has the parameter's shape, except where an entry was and stays kept.

    Momentum, both of Adam's averages, and whatever else an optimizer keeps entry by entry. State in another form
    (factored, quantised, flattened over parameters) is left alone. Adam counts its steps for the whole tensor,
    so that a new entry misses its bias correction: its first step is up to (1 - b1) / sqrt(1 - b2) times the
    learning rate, 3.2 at the usual betas.

    Args:
        optimizer: with ``state``; also one that divides its state among processes (ZeRO).
        parameter: as the optimizer knows it.
        carried: booleans, shaped like this process's part.
    """
    fresh = carried.logical_not()
    for tensor in _tensors(optimizer, parameter):
        part = local(tensor)
        if part.shape == carried.shape and part.is_floating_point():
            part.masked_fill_(fresh, 0.0)


def _tensors(optimizer: Any, parameter: Tensor) -> Iterator[Tensor]:
    for owner in (optimizer, getattr(optimizer, "optim", None)):
        state = getattr(owner, "state", {})
        if parameter in state:
            yield from (value for value in state[parameter].values() if isinstance(value, torch.Tensor))
