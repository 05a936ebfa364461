"""Reproducible comparisons: a ledger of rows, interleaved timing, and one module family per subject."""

from __future__ import annotations

from bisparse.bench.ledger import Ledger, Row
from bisparse.machine import describe_machine
from bisparse.timing import interleave, torch_threads

__all__ = ["Ledger", "Row", "describe_machine", "interleave", "torch_threads"]
