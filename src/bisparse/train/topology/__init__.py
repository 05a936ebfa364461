"""Which entries a weight keeps: one small file each."""

from __future__ import annotations

from bisparse.train.topology.projection import Projection
from bisparse.train.topology.topology import Chosen, Topology

__all__ = ["Chosen", "Projection", "Topology"]
