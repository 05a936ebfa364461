"""Scores to masks: exact and approximate solvers, and an independent check of their results."""

from __future__ import annotations

__all__: list[str] = []
