"""Check a mask and its proof of optimality, independently of every solver.

Nothing here is shared with the solvers: line sums are counted again, and the bound is evaluated again from
the scores and the potentials in float64. By weak duality every admissible pair of potentials gives a true
upper bound, so a wrong or tampered certificate can fail to prove, but never proves falsely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from bisparse.masks.bound import dual_bound, dual_problems, largest_sum, row_bound
from bisparse.masks.chunks import bands, flat_chunks
from bisparse.masks.feasibility import find_violations
from bisparse.masks.result import Duals
from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured, parse_pattern

__all__ = ["TOLERANCE", "Verification", "verify_mask"]

TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes:
        feasible: the mask obeys the pattern.
        violations: what is wrong with the mask or with its duals, one sentence per kind, naming the first
            place.
        density: share of the entries that the mask keeps (0 for an empty tensor).
        objective: sum of the kept scores in float64; NaN without scores.
        bound: proven upper bound of the objective over all allowed masks; ``inf`` where nothing is proven.
        gap: (bound - objective) / objective; ``inf`` for an infeasible mask or where nothing is proven.
        optimal: feasible, and the gap is at most 1e-7.
    """

    feasible: bool
    violations: tuple[str, ...]
    density: float
    objective: float
    bound: float
    gap: float
    optimal: bool


def verify_mask(
    mask: Tensor | npt.NDArray[Any],
    pattern: str | Pattern,
    *,
    scores: Tensor | npt.NDArray[Any] | None = None,
    duals: Duals | None = None,
    at_most: bool = False,
) -> Verification:
    """Recompute feasibility, objective, upper bound and gap of a mask.

    Feasible means: every complete group (N:M) or every line of a complete tile (transposable) keeps exactly
    N, those cut by the edge keep at most N, and an unstructured mask keeps exactly
    ``pattern.kept(mask.numel())`` entries. With scores, the bound is the sum of the largest scores for N:M
    and unstructured patterns. For transposable patterns it is N sum(u) + N sum(v) + sum max(0, s - u - v)
    with the potentials u, v of ``duals``; they must be finite, and non-negative in tiles cut by the edge.

    Cost: a few passes over mask and scores in pieces of 32 MiB (unstructured patterns: one selection on top).

    Args:
        mask: boolean (..., R, C); any shape for unstructured patterns.
        pattern: a pattern or its text.
        scores: non-negative, shaped like the mask, any real dtype.
        duals: potentials of a transposable mask, rows (..., R, ceil(C/M)) and columns (..., ceil(R/M), C).
        at_most: complete lines (and unstructured masks) may keep less than the pattern says, too.

    Returns:
        The verdict. Wrong masks and unusable potentials are reported there, not raised.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: shapes do not fit together; scores are negative or not finite; duals come without scores
            or for a pattern that has none.
    """
    pattern = parse_pattern(pattern)
    kept = torch.as_tensor(mask)
    values = None if scores is None else torch.as_tensor(scores)
    _check_inputs(kept, pattern, values, duals)
    kept = _matrices(kept)
    violations = find_violations(kept, pattern, at_most=at_most)
    feasible = not violations
    objective, bound = math.nan, math.inf
    if values is not None:
        values = _matrices(values)
        objective = _objective(kept, values)
        bound, problems = _bound(values, pattern, duals)
        violations += problems
    gap = _gap(objective, bound) if feasible else math.inf
    density = int(kept.count_nonzero()) / max(kept.numel(), 1)
    return Verification(feasible, tuple(violations), density, objective, bound, gap, gap <= TOLERANCE)


def _matrices(tensor: Tensor) -> Tensor:
    """View (..., R, C) as (B, R, C); fewer dimensions become one matrix."""
    shape = (1, 1, *tensor.shape)[-max(tensor.ndim, 2) :]
    return tensor.reshape(math.prod(shape[:-2]), *shape[-2:])


def _objective(mask: Tensor, scores: Tensor) -> float:
    pieces = bands(mask.shape, 1)
    return math.fsum(float((b.of(scores, torch.float64) * b.of(mask, torch.bool)).sum()) for b in pieces)


def _bound(scores: Tensor, pattern: Pattern, duals: Duals | None) -> tuple[float, list[str]]:
    if isinstance(pattern, Unstructured):
        return largest_sum(scores, pattern.kept(scores.numel())), []
    if isinstance(pattern, NM):
        return row_bound(scores, pattern), []
    if duals is None:
        return math.inf, []
    problems = dual_problems(scores.shape, pattern, duals)
    return (math.inf if problems else dual_bound(scores, pattern, duals)), problems


def _gap(objective: float, bound: float) -> float:
    difference = bound - objective
    if math.isnan(difference):  # no scores, or sums beyond the range of float64
        return math.inf
    if difference <= 0.0:
        return 0.0
    return difference / objective if objective > 0.0 else math.inf


def _check_inputs(mask: Tensor, pattern: Pattern, scores: Tensor | None, duals: Duals | None) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"the mask must be boolean, got {mask.dtype}; pass mask != 0")
    if mask.ndim < 2 and not isinstance(pattern, Unstructured):
        raise ValueError(f"{pattern} needs a mask of shape (..., rows, columns), got {tuple(mask.shape)}")
    if scores is not None:
        if scores.shape != mask.shape:
            raise ValueError(f"scores {tuple(scores.shape)} and mask {tuple(mask.shape)} differ in shape")
        _check_scores(scores)
    if duals is not None:
        if scores is None or not isinstance(pattern, TransposableNM):
            raise ValueError("duals prove something only together with scores and a transposable pattern")
        _check_duals(mask.shape, pattern, duals)


def _check_scores(scores: Tensor) -> None:
    for start, part in flat_chunks(scores):
        bad = ~((part >= 0.0) & (part < math.inf))
        if bool(bad.any()):
            index = torch.tensor(start + int(bad.to(torch.uint8).argmax()))
            place = tuple(int(i) for i in torch.unravel_index(index, scores.shape))
            raise ValueError(
                f"scores must be finite and non-negative, but scores{list(place)} is {scores[place].item()}"
            )


def _check_duals(shape: torch.Size, pattern: TransposableNM, duals: Duals) -> None:
    *batch, rows, columns = shape
    expected = {
        "rows": (*batch, rows, -(-columns // pattern.block)),
        "columns": (*batch, -(-rows // pattern.block), columns),
    }
    for name, wanted in expected.items():
        found = tuple(getattr(duals, name).shape)
        if found != wanted:
            raise ValueError(f"duals.{name} must have shape {wanted} for {pattern} on this mask, got {found}")
