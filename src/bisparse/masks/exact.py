"""Exact masks by the native core, with the proof of their optimality.

For a transposable pattern K:M every complete M x M tile with scores s solves

    maximise sum_ij s_ij x_ij   subject to   sum_j x_ij = K,  sum_i x_ij = K,  x in {0, 1}.

The constraints are totally unimodular, so potentials u (rows) and v (columns) with ``x_ij = [s_ij > u_i + v_j]``
prove x optimal. The core finds them by alternating midpoints (a half sweep puts each u_i between the K-th and the
(K+1)-th largest of s_i: - v, the other half does the same for columns), with clamped over-relaxation for M >= 8, and
completes what ties leave open by successive shortest augmenting paths in float64.

Source: the integer program and its flow form are Hubara et al. 2021 (arXiv 2102.08124), section on transposable masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse import _core
from bisparse.masks.result import Duals
from bisparse.pattern import NM, Pattern, TransposableNM

__all__ = ["ExactAnswer", "solve_exact"]


@dataclass(frozen=True, slots=True)
class ExactAnswer:
    """A mask with its objective, a proven bound and, for transposable patterns, the certificate's figures."""

    mask: Tensor
    objective: float
    bound: float
    rounds: int = 0
    repaired_tiles: int = 0
    duals: Duals | None = None


def solve_exact(
    scores: Tensor,
    pattern: Pattern,
    *,
    threads: int,
    magnitude: bool = False,
    warm_columns: Tensor | None = None,
    return_duals: bool = False,
    instruction_set: str | None = None,
) -> ExactAnswer | None:
    """Solve (batch, rows, columns) scores exactly; None if an entry is NaN, infinite or (unsigned) negative.

    Args:
        scores: CPU tensor of a native dtype, any strides.
        pattern: row-wise N:M, transposable N:M or unstructured (over all entries of all matrices together).
        threads: upper limit; small inputs use one.
        magnitude: solve for ``|scores|`` without a copy.
        warm_columns: (batch, ceil(rows / M), columns) potentials to start from.
        return_duals: also return the certificate of a transposable mask.
        instruction_set: one of ``_core.instruction_sets()``, for tests; the bits of the answer are the same.

    Cost: a few passes over memory for M <= 8, growing like M log^2 M per line beyond.
    """
    mask = torch.empty(scores.shape, dtype=torch.bool)
    raw = mask.view(torch.uint8)
    if isinstance(pattern, TransposableNM):
        duals = _empty_duals(scores, pattern.block) if return_duals else None
        answer = _core.solve_transposable(
            scores,
            raw,
            pattern.keep,
            pattern.block,
            magnitude,
            threads,
            warm_columns,
            duals.rows if duals else None,
            duals.columns if duals else None,
            instruction_set,
        )
        bound = answer.objective + answer.slack
        found = ExactAnswer(mask, answer.objective, bound, answer.rounds, answer.repaired, duals)
    elif isinstance(pattern, NM):
        answer = _core.solve_row_wise(
            scores, raw, pattern.keep, pattern.block, magnitude, threads, instruction_set
        )
        found = ExactAnswer(mask, answer.objective, answer.objective)
    else:
        answer = _core.solve_unstructured(scores, raw, pattern.kept(scores.numel()), magnitude, threads)
        found = ExactAnswer(mask, answer.objective, answer.objective)
    return None if answer.invalid else found


def _empty_duals(scores: Tensor, block: int) -> Duals:
    batch, rows, columns = scores.shape
    single = scores.dtype in (torch.float16, torch.bfloat16, torch.float32)
    dtype = torch.float32 if single else torch.float64
    return Duals(
        rows=torch.zeros(batch, rows, -(-columns // block), dtype=dtype),
        columns=torch.zeros(batch, -(-rows // block), columns, dtype=dtype),
    )
