"""One view of every weight as matrices, and the choice of weights by ``targets`` and ``ignore``."""

from __future__ import annotations

from bisparse.weights.assign import PatternChoice, assign_patterns
from bisparse.weights.find import LeftOut, Weight, WeightSelection, find_weights
from bisparse.weights.kinds import module_layouts, unsupported_reason
from bisparse.weights.layout import Layout, LayoutKind, as_matrices, from_matrices
from bisparse.weights.rows import as_rows, from_rows, matrices_as_rows, rows_as_matrices
from bisparse.weights.select import Selector, Selectors, matches, protected_names, select_names

__all__ = [
    "Layout",
    "LayoutKind",
    "LeftOut",
    "PatternChoice",
    "Selector",
    "Selectors",
    "Weight",
    "WeightSelection",
    "as_matrices",
    "as_rows",
    "assign_patterns",
    "find_weights",
    "from_matrices",
    "from_rows",
    "matches",
    "matrices_as_rows",
    "module_layouts",
    "protected_names",
    "rows_as_matrices",
    "select_names",
    "unsupported_reason",
]
