"""Sparse training: the sparsifier, its rules, schedules, topologies and measures."""

from __future__ import annotations

from bisparse.train.rules import RULES, Hard, Rule, SrSte, SSte, Ste
from bisparse.train.schedule import Ramp, Schedule
from bisparse.train.sparsifier import Sparsifier
from bisparse.train.topology import Projection, Topology

__all__ = [
    "RULES",
    "Hard",
    "Projection",
    "Ramp",
    "Rule",
    "SSte",
    "Schedule",
    "Sparsifier",
    "SrSte",
    "Ste",
    "Topology",
]
