"""Which entries a weight keeps: one small file each, and one line in the table.

These are masks of dense weights, under any pattern; ``train.evolution`` has SET, RigL and importance pruning once more,
for layers of which only the connections exist, where neither a mask nor a dense gradient may be made.
"""

from __future__ import annotations

from bisparse.train.topology.drop import DROPS, Drop
from bisparse.train.topology.evolve import Evolve
from bisparse.train.topology.fraction import Fraction
from bisparse.train.topology.grow import GROWS, Grow
from bisparse.train.topology.importance import Importance
from bisparse.train.topology.newborn import Newborn
from bisparse.train.topology.projection import Projection
from bisparse.train.topology.redistribution import REDISTRIBUTIONS, Redistribution
from bisparse.train.topology.rigl import RigL
from bisparse.train.topology.set import Set
from bisparse.train.topology.snfs import Snfs
from bisparse.train.topology.static import Static
from bisparse.train.topology.topology import Chosen, Topology

__all__ = [
    "DROPS",
    "GROWS",
    "REDISTRIBUTIONS",
    "TOPOLOGIES",
    "Chosen",
    "Drop",
    "Evolve",
    "Fraction",
    "Grow",
    "Importance",
    "Newborn",
    "Projection",
    "Redistribution",
    "RigL",
    "Set",
    "Snfs",
    "Static",
    "Topology",
]

TOPOLOGIES: dict[str, Topology] = {
    "projection": Projection(),
    "static": Static(),
    "set": Set(),
    "rigl": RigL(),
    "snfs": Snfs(),
    "evolve": Evolve(),
}
