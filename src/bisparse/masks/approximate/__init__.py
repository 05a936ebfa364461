"""The other ways from scores to transposable masks, for comparison and for the literature.

==============  ==========================================  ====================================
method          guarantee                                   lines of complete tiles
==============  ==========================================  ====================================
``greedy``      half of the optimal kept score              exactly N with repair, else at most N
``two_approx``  twice the optimal pruned score              at most N
``entropic``    none; about 0.1% lost on Gaussian scores    exactly N
``flow``        optimal for scores rounded to 40 bits       exactly N
==============  ==========================================  ====================================

Every method maps float32 or float64 scores (B, R, C) of any size and a
:class:`~bisparse.pattern.TransposableNM` to a boolean mask; tiles cut by the edge keep at most N per line.
"""

from __future__ import annotations

from bisparse.masks.approximate.entropic import EntropicSetting, solve_entropic, tuned_setting
from bisparse.masks.approximate.flow import solve_flow
from bisparse.masks.approximate.greedy import solve_greedy
from bisparse.masks.approximate.two_approx import solve_two_approx

__all__ = [
    "EntropicSetting",
    "solve_entropic",
    "solve_flow",
    "solve_greedy",
    "solve_two_approx",
    "tuned_setting",
]
