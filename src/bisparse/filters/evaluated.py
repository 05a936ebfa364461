"""What a user's ``evaluate`` says about a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from bisparse.filters.signature import call_fault

__all__ = ["Evaluate", "check_evaluate", "evaluated"]

Evaluate: TypeAlias = "Callable[[nn.Module], float]"


def check_evaluate(evaluate: Evaluate | None) -> None:
    """Find out before hours of work whether it can be called with one model.

    Raises:
        ValueError: it cannot.
    """
    if evaluate is None:
        return
    if not callable(evaluate):
        raise ValueError(
            f"evaluate= is a {type(evaluate).__name__}: pass a function from a model to a number"
        )
    fault = call_fault(evaluate, nn.Identity())
    if fault is not None:
        raise ValueError(
            f"evaluate= is called with the model alone: {fault}; pass a function from a model to a number"
        )


def evaluated(evaluate: Evaluate, model: nn.Module) -> float:
    """Its number; a tensor or array of one entry is one, too.

    Raises:
        ValueError: it returns something else.
    """
    result = evaluate(model)
    try:
        return float(result)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"evaluate= returned a {type(result).__name__}, not a number") from None
