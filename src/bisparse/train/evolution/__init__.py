"""Callbacks that change the connections of truly sparse layers while a trainer trains them."""

from __future__ import annotations

from bisparse.train.evolution.evolution import Evolution
from bisparse.train.evolution.importance import ImportancePruning
from bisparse.train.evolution.rigl import RiglEvolution
from bisparse.train.evolution.set import SetEvolution

__all__ = ["Evolution", "ImportancePruning", "RiglEvolution", "SetEvolution"]
