"""Upper bounds on what any allowed mask can keep, evaluated in float64 without any solver."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from bisparse.masks.chunks import Band, bands, flat_chunks
from bisparse.masks.result import Duals
from bisparse.pattern import NM, TransposableNM

__all__ = ["dual_bound", "dual_problems", "largest_sum", "row_bound"]

_ROUNDING = (
    2.0**-48
)  # per unit of potential and entry of its line: float64's 2**-53 and the length of the sums


def largest_sum(scores: Tensor, kept: int) -> float:
    """Sum of the ``kept`` largest scores: the bound of an unstructured mask, reached by its optimum."""
    if kept == 0:
        return 0.0
    flat = scores.reshape(-1)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.to(torch.float64)
    threshold = float(flat.kthvalue(flat.numel() - kept + 1).values)
    above, parts = 0, []
    for _, part in flat_chunks(flat):
        larger = part[part > threshold]
        above += larger.numel()
        parts.append(float(larger.sum()))
    return math.fsum([*parts, (kept - above) * threshold])


def row_bound(scores: Tensor, pattern: NM) -> float:
    """Sum of the ``keep`` largest scores of every group of a row: the bound of row-wise N:M for (B, R, C)."""
    parts = []
    for band in bands(scores.shape, 1):
        part = band.of(scores, torch.float64)
        groups = pad(part, (0, -part.shape[-1] % pattern.block)).reshape(-1, pattern.block)
        parts.append(float(groups.topk(pattern.keep, dim=-1, sorted=False).values.sum()))
    return math.fsum(parts)


def dual_problems(shape: torch.Size, pattern: TransposableNM, duals: Duals) -> list[str]:
    """Say why potentials prove nothing: not finite, or negative in a tile that the edge cuts."""
    problems = []
    block = pattern.block
    rows, columns = shape[1:]
    row_duals, column_duals = _as_matrices(shape, block, duals)
    last_row, last_column = rows - rows % block, columns - columns % block
    cut = {
        "rows": (row_duals, [row_duals[:, last_row:], row_duals[:, :, last_column // block :]]),
        "columns": (column_duals, [column_duals[:, last_row // block :], column_duals[:, :, last_column:]]),
    }
    for name, (potentials, edges) in cut.items():
        if not bool(potentials.isfinite().all()):
            problems.append(f"duals.{name} are not finite")
        elif any(bool((edge < 0).any()) for edge in edges):
            problems.append(f"duals.{name} are negative in tiles cut by the edge, where lines may stay short")
    return problems


def dual_bound(scores: Tensor, pattern: TransposableNM, duals: Duals) -> float:
    """Evaluate N sum(u) + N sum(v) + sum max(0, s - u - v) for scores (B, R, C).

    A bound for every finite u, v that is non-negative in tiles cut by the edge: there lines keep at most N,
    so the term N u must not be negative. See :func:`dual_problems`. Potentials that dwarf the scores cancel in
    the formula: the rounding that this may cause is added once it could exceed 1e-12 of the bound. ``inf`` if a
    sum leaves the range of float64.
    """
    parts, size = [], 0.0
    for band in bands(scores.shape, pattern.block):
        part = band.of(scores, torch.float64)
        u, v = _potentials(band, scores.shape, pattern.block, duals)
        height, width = part.shape[-2:]
        part = part - u.repeat_interleave(pattern.block, dim=2)[:, :, :width]
        part -= v.repeat_interleave(pattern.block, dim=1)[:, :height]
        parts += [
            pattern.keep * float(u.sum()),
            pattern.keep * float(v.sum()),
            float(part.clamp_(min=0.0).sum()),
        ]
        size += pattern.block * (float(u.abs().sum()) + float(v.abs().sum()))
    if not all(map(math.isfinite, (size, *parts))):
        return math.inf
    try:
        bound = math.fsum(parts)
    except OverflowError:
        return math.inf
    rounding = _ROUNDING * size
    return bound if rounding <= 1e-12 * bound else bound + rounding


def _potentials(band: Band, shape: torch.Size, block: int, duals: Duals) -> tuple[Tensor, Tensor]:
    """The potentials of one band: rows (b, h, tile columns) and columns (b, tile rows, C)."""
    rows, columns = _as_matrices(shape, block, duals)
    tile_rows = slice(band.rows.start // block, -(-band.rows.stop // block))
    return band.of(rows, torch.float64), Band(band.batch, tile_rows).of(columns, torch.float64)


def _as_matrices(shape: torch.Size, block: int, duals: Duals) -> tuple[Tensor, Tensor]:
    """The potentials with one leading dimension: rows (B, R, tile columns) and columns (B, tile rows, C)."""
    batch, rows, columns = shape
    return (
        duals.rows.reshape(batch, rows, -(-columns // block)),
        duals.columns.reshape(batch, -(-rows // block), columns),
    )
