"""Scores to masks: exact and approximate solvers, and an independent check of their results."""
