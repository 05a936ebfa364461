"""How many weights each layer keeps: one small file each, and one line in the table."""

from __future__ import annotations

from bisparse.train.allocation.allocation import Allocation
from bisparse.train.allocation.erdos_renyi import ErdosRenyi
from bisparse.train.allocation.uniform import Uniform

__all__ = ["ALLOCATIONS", "Allocation", "ErdosRenyi", "Uniform", "resolve_allocation"]

ALLOCATIONS: dict[str, Allocation] = {
    "uniform": Uniform(),
    "er": ErdosRenyi(kernel=False),
    "erk": ErdosRenyi(),
}


def resolve_allocation(allocation: str | Allocation) -> Allocation:
    """An allocation by name, or the allocation itself.

    Raises:
        TypeError: neither text nor an allocation.
        ValueError: an unknown name.
    """
    if isinstance(allocation, Allocation):
        return allocation
    names = ", ".join(ALLOCATIONS)
    if not isinstance(allocation, str):
        raise TypeError(
            f"an allocation is text or an Allocation, got {type(allocation).__name__}; one of {names}"
        )
    if allocation.lower() not in ALLOCATIONS:
        raise ValueError(f"unknown allocation {allocation!r}; choose one of {names}, or pass an Allocation")
    return ALLOCATIONS[allocation.lower()]
