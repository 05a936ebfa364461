"""Callbacks that change the connections of truly sparse layers while a trainer trains them.

``train.topology`` evolves masks of dense weights, where every entry has a gradient and tiles are possible; here nothing
of the dense size exists, so that SET, RigL and importance pruning work on lists of connections.
"""

from __future__ import annotations

from bisparse.train.evolution.evolution import Evolution
from bisparse.train.evolution.importance import ImportancePruning
from bisparse.train.evolution.rigl import RiglEvolution
from bisparse.train.evolution.set import SetEvolution

__all__ = ["Evolution", "ImportancePruning", "RiglEvolution", "SetEvolution"]
