"""Sparse training: the sparsifier, its rules, schedules, topologies and measures."""

from __future__ import annotations

from bisparse.train.allocation import ALLOCATIONS, Allocation, ErdosRenyi, Uniform
from bisparse.train.rules import RULES, Dst, Hard, Rule, SrSte, SSte, Ste
from bisparse.train.schedule import Ramp, Schedule
from bisparse.train.sparsifier import Sparsifier
from bisparse.train.topology import (
    TOPOLOGIES,
    Evolve,
    Fraction,
    Importance,
    Newborn,
    Projection,
    RigL,
    Set,
    Snfs,
    Static,
    Topology,
)

__all__ = [
    "ALLOCATIONS",
    "RULES",
    "TOPOLOGIES",
    "Allocation",
    "Dst",
    "ErdosRenyi",
    "Evolve",
    "Fraction",
    "Hard",
    "Importance",
    "Newborn",
    "Projection",
    "Ramp",
    "RigL",
    "Rule",
    "SSte",
    "Schedule",
    "Set",
    "Snfs",
    "Sparsifier",
    "SrSte",
    "Static",
    "Ste",
    "Topology",
    "Uniform",
]
