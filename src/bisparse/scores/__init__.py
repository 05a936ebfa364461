"""What each weight is worth, from the weights and from :class:`LayerStatistics`."""

from __future__ import annotations

from bisparse.scores.magnitude import magnitude
from bisparse.scores.obs import obs
from bisparse.scores.ria import ria
from bisparse.scores.statistics import LayerStatistics
from bisparse.scores.table import SCORES, ScoreFunction, Scores, needs_data, score_rows
from bisparse.scores.wanda import wanda

__all__ = [
    "SCORES",
    "LayerStatistics",
    "ScoreFunction",
    "Scores",
    "magnitude",
    "needs_data",
    "obs",
    "ria",
    "score_rows",
    "wanda",
]
