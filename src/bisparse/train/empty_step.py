"""Steps that change nothing, and so are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bisparse.train.masked_weight import MaskedWeight

__all__ = ["is_empty_step"]


def is_empty_step(optimizer: Any, weights: Sequence[MaskedWeight]) -> bool:
    """Whether the step that is about to happen changes nothing.

    - A ``GradScaler`` found infinite gradients: a fused optimizer's hooks run, its step does nothing.
    - All learning rates and gradients are 0: so ``torch.distributed.checkpoint.state_dict`` makes an optimizer's state
      before it loads or saves one, also in the middle of training where an optimizer has no state.

    Args:
        optimizer: whose step it is.
        weights: that it updates. Where they are divided, all processes have to ask, and get one answer.

    Cost: nothing but where a ``GradScaler`` is at work or all learning rates are 0.
    """
    found = getattr(optimizer, "found_inf", None)
    if found is not None and bool(found.item()):
        return True
    return not any(_moves(group) for group in optimizer.param_groups) and not any(map(_pulls, weights))


def _moves(group: Mapping[str, Any]) -> bool:
    rate = group.get("lr", 1.0)
    if isinstance(rate, Tensor) and rate.device.type != "cpu":
        return True  # to look would mean to wait for the device
    return bool(rate != 0.0)


def _pulls(weight: MaskedWeight) -> bool:
    gradient = weight.gradient
    count = torch.zeros((), dtype=torch.int64, device=weight.values.device)
    if gradient is not None:
        count += gradient.count_nonzero()
    return bool((count if weight.sharding is None else weight.sharding.sum_(count)).item())
