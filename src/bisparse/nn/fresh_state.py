"""What an optimizer's state begins with, for connections that have just grown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["fresh_state"]


def fresh_state(name: str, group: Mapping[str, Any]) -> float:
    """The number that an entry of a state has before the first step.

    Zero for momentum and for averages; Rprop's step sizes begin at the learning rate, Adagrad's sums at a number of
    their own.

    Args:
        name: of the state.
        group: settings of the parameter's group.
    """
    match name:
        case "step_size":
            return float(group["lr"])
        case "sum":
            return float(group.get("initial_accumulator_value", 0.0))
    return 0.0
