"""How much of a network may remain, and the smallest change that gets it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

__all__ = ["Budget", "Resource", "level_for", "parse_budget"]

Resource: TypeAlias = Literal["params", "flops", "latency"]


@dataclass(frozen=True, slots=True)
class Budget:
    """A share of the original network that may remain.

    Attributes:
        resource: ``"params"``, ``"flops"`` (multiply-adds) or ``"latency"`` (measured).
        keep: the share, between 0 and 1.
    """

    resource: Resource
    keep: float

    def __post_init__(self) -> None:
        if self.resource not in get_args(Resource):
            raise ValueError(f"budget of {self.resource!r}: choose one of {', '.join(get_args(Resource))}")
        if not 0 < self.keep <= 1:
            raise ValueError(
                f"budget {self.resource}:{self.keep:g}: the share that remains lies between 0 and 1; "
                f"{self.resource}:0.6 keeps 60%"
            )

    def __str__(self) -> str:
        return f"{self.resource}:{self.keep:g}"


def parse_budget(text: str | Budget) -> Budget:
    """``"params:0.6"``: at most 60% of the parameters remain; likewise ``"flops:0.5"`` and ``"latency:0.5"``.

    Raises:
        ValueError: not of that form.
        TypeError: no text.
    """
    if isinstance(text, Budget):
        return text
    if not isinstance(text, str):
        raise TypeError(f"budget {text!r}: write RESOURCE:SHARE as text, for example 'params:0.6' keeps 60%")
    name, _, share = text.partition(":")
    try:
        keep = float(share)
    except ValueError:
        raise ValueError(f"budget {text!r}: write RESOURCE:SHARE, for example params:0.6 keeps 60%") from None
    return Budget(name.strip(), keep)  # type: ignore[arg-type]


def level_for(
    widths: Callable[[float], Sequence[int]],
    cost: Callable[[Sequence[int]], float],
    limit: float,
    bounds: tuple[float, float],
    *,
    whole: float = 1.0,
    steps: int = 60,
) -> float:
    """The lowest level at which the cost is within the limit, by bisection.

    Args:
        widths: widths at a level; they fall with it.
        cost: of widths.
        limit: what it may be.
        bounds: a level that removes nothing, and one that removes all that can be removed.
        whole: cost of the network as it is, for the error message.
        steps: halvings.

    Raises:
        ValueError: even the highest level costs more; says what is the least share that can be had.
    """
    low, high = bounds
    if cost(widths(low)) <= limit:
        return low
    least = cost(widths(high))
    if least > limit:
        raise ValueError(
            f"the budget cannot be met: with all widths at their least, a share of {least / whole:.3g} remains, above "
            f"{limit / whole:.3g}; ask for a larger share, or protect fewer layers"
        )
    for _ in range(steps):
        middle = (low + high) / 2
        if cost(widths(middle)) <= limit:
            high = middle
        else:
            low = middle
    return high
