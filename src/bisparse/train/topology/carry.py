"""Optimizer state when a topology changes: survivors keep theirs, all other entries start anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bisparse.nn.fresh_state import fresh_state
from bisparse.train.sharding import local

__all__ = ["reset_state_"]


def reset_state_(optimizer: Any, parameter: Tensor, carried: Tensor) -> None:
    """Set every state tensor that has the parameter's shape back, except where an entry was and stays kept.

    Momentum and both of Adam's averages become 0, and whatever else an optimizer keeps entry by entry what it is at the
    first step. State in another form
    (factored, quantised, flattened over parameters) is left alone. Adam counts its steps for the whole tensor,
    so that a new entry misses its bias correction: its first step is up to (1 - b1) / sqrt(1 - b2) times the
    learning rate, 3.2 at the usual betas.

    Args:
        optimizer: with ``state``; also one that divides its state among processes (ZeRO).
        parameter: as the optimizer knows it.
        carried: booleans, shaped like this process's part.
    """
    fresh = carried.logical_not()
    for tensor, start in _tensors(optimizer, parameter):
        part = local(tensor)
        if part.shape == carried.shape and part.is_floating_point():
            part.masked_fill_(fresh, start)


def _tensors(optimizer: Any, parameter: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Each state, and what its entries begin with."""
    for owner in filter(None, (optimizer, getattr(optimizer, "optim", None))):
        state = getattr(owner, "state", {})
        if parameter in state:
            groups = [each for each in owner.param_groups if any(p is parameter for p in each["params"])]
            for name, value in state[parameter].items():
                if isinstance(value, torch.Tensor):
                    yield value, fresh_state(name, groups[0]) if groups else 0.0
