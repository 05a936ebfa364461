"""Trainable thresholds: a weight counts where its magnitude exceeds a threshold that is learnt with it."""

from __future__ import annotations

from bisparse.train.thresholds.estimator import LongTail
from bisparse.train.thresholds.granularity import (
    Granularity,
    PerEntry,
    PerRow,
    PerTile,
    PerWeight,
    resolve_granularity,
)
from bisparse.train.thresholds.reset import Reset
from bisparse.train.thresholds.target import Target

__all__ = [
    "Granularity",
    "LongTail",
    "PerEntry",
    "PerRow",
    "PerTile",
    "PerWeight",
    "Reset",
    "Target",
    "resolve_granularity",
]
