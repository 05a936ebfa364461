"""The largest scores among some entries, and tiles filled up around what survives."""

from __future__ import annotations

import torch
from torch import Tensor

from bisparse.masks.solve import solve_mask
from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured
from bisparse.weights import Layout, as_matrices, from_matrices

__all__ = ["completed", "keeping", "largest"]


def keeping(count: int, total: int) -> Unstructured:
    """The pattern that keeps exactly ``count`` of ``total`` weights.

    Raises:
        ValueError: ``count`` is outside 1..total.
    """
    if not 1 <= count <= total:
        raise ValueError(f"cannot keep {count} of {total} weights: 1 to {total}")
    return Unstructured((total - count) / total)


def largest(scores: Tensor, allowed: Tensor, count: int) -> Tensor:
    """The mask of the ``count`` largest scores among the allowed entries; ties go to the lower index.

    Args:
        scores: any shape, not negative where allowed.
        allowed: booleans, same shape, at least ``count`` of them True.
        count: how many.

    Raises:
        ValueError: too few entries are allowed; NaN or infinite scores.
    """
    candidates = scores[allowed]
    mask = torch.zeros_like(allowed)
    if count > len(candidates):
        raise ValueError(f"{count} entries are asked of {len(candidates)}")
    if count > 0:
        chosen = solve_mask(candidates.unsqueeze(0), keeping(count, len(candidates))).mask[0]
        mask[allowed] = chosen.to(mask.device)
    return mask


def completed(surviving: Tensor, growth: Tensor, pattern: Pattern, layout: Layout) -> Tensor:
    """The mask of an N:M or transposable N:M pattern that keeps all that survives, and grows where it is best.

    In every group or tile the sum of ``growth`` over new entries is as large as the constraint allows: a
    survivor counts more than everything that its tile could gain, so that the exact solver never gives one up.
    What survives has to be part of an allowed mask; complete tiles then end with exactly N per line, as before.

    Args:
        surviving: booleans, shaped like the weight.
        growth: not negative, same shape.
        pattern: not unstructured.
        layout: how the weight is read as matrices.

    Raises:
        ValueError: NaN or infinite growth.
    """
    assert isinstance(pattern, (NM, TransposableNM))
    kept, gain = as_matrices(surviving, layout), as_matrices(growth, layout).double()
    gain = gain / gain.amax().clamp(min=1e-300)
    bonus = 2.0 * pattern.block * pattern.keep + 1.0
    result = solve_mask(torch.where(kept, bonus, 1.0 + gain), pattern)
    return from_matrices(result.mask, layout, surviving.shape)
