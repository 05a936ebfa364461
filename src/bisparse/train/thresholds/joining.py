"""Thresholds as parameters of the optimizer that trains their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["forget_", "join_"]

_SINGLE_GROUP = ("LBFGS", "ZeroRedundancyOptimizer")


def join_(optimizer: Any, index: int, named: Mapping[str, nn.Parameter], *, decay: bool) -> None:
    """Add parameters as a new group with the settings of an old one; those that are in it already stay there.

    Args:
        optimizer: of their weights.
        index: the weights' group.
        named: parameters by name (of optimizers that know names).
        decay: keep the group's weight decay.

    Raises:
        ValueError: the optimizer takes no further group, or a learning-rate scheduler knows its groups already.
    """
    if type(optimizer).__name__ in _SINGLE_GROUP:
        raise ValueError(
            f"{type(optimizer).__name__} cannot take thresholds as a further group of parameters: use an optimizer "
            "such as SGD or AdamW"
        )
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    new = {name: parameter for name, parameter in named.items() if id(parameter) not in known}
    if not new:
        return
    if getattr(optimizer.step, "_wrapped_by_lr_sched", False):
        raise ValueError(
            "thresholds join the optimizer as a further group of parameters, which its learning-rate scheduler would "
            "not know: make the scheduler after prepare(model, optimizer) or attach(optimizer)"
        )
    old = optimizer.param_groups[index]
    group = {key: value for key, value in old.items() if key not in ("params", "param_names")}
    if not decay and "weight_decay" in group:
        group["weight_decay"] = 0.0
    group["params"] = list(new.items()) if "param_names" in old else list(new.values())
    optimizer.add_param_group(group)


def forget_(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    """Drop what the optimizer has gathered for a parameter: it starts anew with the next gradient."""
    optimizer.state.pop(parameter, None)
