"""Which kept weights are given up: one small file each, and one line in the table."""

from __future__ import annotations

from bisparse.train.topology.drop.drop import Drop
from bisparse.train.topology.drop.magnitude import Magnitude
from bisparse.train.topology.drop.taylor import MagnitudeGradient, Taylor
from bisparse.train.topology.drop.two_sided import TwoSided

__all__ = ["DROPS", "Drop", "Magnitude", "MagnitudeGradient", "Taylor", "TwoSided"]

DROPS: dict[str, Drop] = {
    "magnitude": Magnitude(),
    "two-sided": TwoSided(),
    "taylor": Taylor(),
    "magnitude-gradient": MagnitudeGradient(),
}
