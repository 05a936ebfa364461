"""Steps that are none: those that a ``GradScaler`` skips, and those that only make an optimizer's state."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

__all__ = ["is_empty_step"]

_MAKER = "_init_optim_state"  # in torch.distributed.checkpoint.state_dict


def is_empty_step(optimizer: Any) -> bool:
    """Whether the step that is about to happen, seen from its pre-hook, is no step of training.

    - A ``GradScaler`` found infinite gradients: a fused optimizer's hooks run, its step does nothing.
    - ``torch.distributed.checkpoint.state_dict`` makes the state of an optimizer that has none, before it loads or
      saves one, by a step with learning rate 0 and zero gradients.

    Cost: next to nothing, but for reading a ``GradScaler``'s flag on the device.
    """
    found = getattr(optimizer, "found_inf", None)
    if found is not None and bool(found.item()):
        return True
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != _MAKER:
        frame = frame.f_back
    return frame is not None
