"""How many weights each layer keeps: one small file each, and one line in the table."""

from __future__ import annotations

from bisparse.train.allocation.allocation import Allocation
from bisparse.train.allocation.erdos_renyi import ErdosRenyi
from bisparse.train.allocation.uniform import Uniform

__all__ = ["ALLOCATIONS", "Allocation", "ErdosRenyi", "Uniform"]

ALLOCATIONS: dict[str, Allocation] = {
    "uniform": Uniform(),
    "er": ErdosRenyi(kernel=False),
    "erk": ErdosRenyi(),
}
