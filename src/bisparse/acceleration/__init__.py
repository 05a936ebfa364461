"""Measure dense against sparse at the shapes that really occur, and choose layer by layer."""

from __future__ import annotations

from bisparse.acceleration.candidates import CANDIDATES, Candidate, Mode
from bisparse.acceleration.entry import Accelerated, accelerate, accelerate_
from bisparse.acceleration.report import AccelerateReport, LayerTiming
from bisparse.acceleration.timing import LayerTimes, time_layer

__all__ = [
    "CANDIDATES",
    "AccelerateReport",
    "Accelerated",
    "Candidate",
    "LayerTimes",
    "LayerTiming",
    "Mode",
    "accelerate",
    "accelerate_",
    "time_layer",
]
