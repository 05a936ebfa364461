"""Whole numbers of weights out of densities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["whole_counts"]


def whole_counts(densities: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """How many weights each layer keeps: ``total`` in all, each within one of ``density * size``, at least one.

    Args:
        densities: in [0, 1], one for each layer; their sum over all weights is ``total`` to rounding.
        sizes: weights of each layer.
        total: weights that are kept in all.

    Returns:
        Numbers from 1 to the size. Remainders go to the largest fractions, ties to the first layer.
    """
    wanted = np.asarray(densities, float) * np.asarray(sizes)
    counts = np.clip(np.floor(wanted + 1e-9), 1, sizes).astype(np.int64)
    while (missing := total - int(counts.sum())) != 0:
        gap = wanted - counts if missing > 0 else counts - wanted
        free = counts < sizes if missing > 0 else counts > 1
        chosen = np.argsort(-np.where(free, gap, -np.inf), kind="stable")[
            : min(abs(missing), int(free.sum()))
        ]
        if not len(chosen):
            break
        counts[chosen] += 1 if missing > 0 else -1
    return [int(count) for count in counts]
