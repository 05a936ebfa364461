"""Straight-through estimator."""

from __future__ import annotations

from bisparse.train.rules.rule import Rule

__all__ = ["Ste"]


class Ste(Rule):
    """The gradient at W*E reaches every entry of W, dropped or kept, unchanged.

    Source: Bengio et al. 2013 (arXiv 1308.3432); for N:M masks Zhou et al. 2021 (arXiv 2102.04010).
    """
