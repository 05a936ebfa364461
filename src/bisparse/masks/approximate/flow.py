"""Optimal masks by min-cost flow, one tile after the other: the slow oracle."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bisparse.masks.tiles import by_tiles
from bisparse.pattern import TransposableNM

__all__ = ["solve_flow"]

_RESOLUTION = 40  # bits for the largest score of a tile


def solve_flow(scores: Tensor, pattern: TransposableNM) -> Tensor:
    """Solve every tile as a min-cost flow with OR-tools.

    Problem: per M x M tile, maximise the kept score with exactly N kept per row and column (tiles cut by
    the edge: at most N). Source -> row (capacity N) -> column (capacity 1, cost -score) -> sink (capacity
    N), N M units of flow; a tile cut by the edge has one more arc from source to sink, free of cost, for
    the units that stay out.

    Guarantee: optimal for the rounded scores. OR-tools takes integer costs, so the scores of a tile are
    scaled in float64 until the largest becomes 2^40 and rounded: the kept score is within N M 2^-41 of that
    largest score of the optimum, about 3e-11 for 8:16.

    Cost: a Python loop, 0.1 ms per 8 x 8 and 0.7 ms per 32 x 32 tile; minutes for one large layer.

    When to use it: in tests, as an independent oracle, and to reproduce the min-cost flow of Hubara et al.
    (2021).

    Args:
        scores: non-negative (B, R, C), any size.
        pattern: transposable pattern.

    Returns:
        Boolean mask (B, R, C).

    Raises:
        ImportError: OR-tools is not installed.
        RuntimeError: OR-tools reports anything but an optimum.
    """
    return by_tiles(scores, pattern.block, partial(_solve_tiles, keep=pattern.keep, solver=_import_solver()))


def _import_solver() -> ModuleType:
    try:
        from ortools.graph.python import min_cost_flow
    except ImportError as error:
        raise ImportError('method "flow" needs OR-tools: pip install "bisparse[flow]"') from error
    return min_cost_flow  # type: ignore[no-any-return]


def _solve_tiles(scores: Tensor, real: Tensor, *, keep: int, solver: ModuleType) -> Tensor:
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for index, (tile, cells) in enumerate(zip(scores.double().numpy(), real, strict=True)):
        rows, columns = int(cells.any(1).sum()), int(cells.any(0).sum())
        kept = _solve_tile(tile[:rows, :columns], keep, len(tile), solver)
        mask[index, :rows, :columns] = torch.from_numpy(kept)
    return mask


def _solve_tile(
    scores: npt.NDArray[np.float64], keep: int, block: int, solver: ModuleType
) -> npt.NDArray[np.bool_]:
    """One tile (r, c) of real entries; nodes are rows, columns, source, sink."""
    rows, columns = scores.shape
    source, sink = rows + columns, rows + columns + 1
    units = keep * min(rows, columns)
    largest = float(scores.max())
    costs = np.rint(scores / (largest or 1.0) * 2.0**_RESOLUTION).astype(np.int64)
    row, column = np.divmod(np.arange(rows * columns), columns)
    network = solver.SimpleMinCostFlow()
    arcs = network.add_arcs_with_capacity_and_unit_cost(
        row, rows + column, np.ones(rows * columns, np.int64), -costs.ravel()
    )
    for line in range(rows):
        network.add_arc_with_capacity_and_unit_cost(source, line, keep, 0)
    for line in range(columns):
        network.add_arc_with_capacity_and_unit_cost(rows + line, sink, keep, 0)
    if min(rows, columns) < block:
        network.add_arc_with_capacity_and_unit_cost(source, sink, units, 0)
    network.set_nodes_supplies(np.array([source, sink]), np.array([units, -units]))
    status = network.solve()
    if status != network.OPTIMAL:
        raise RuntimeError(f"OR-tools found no optimum for a {rows} x {columns} tile (status {status})")
    flows: npt.NDArray[np.int64] = network.flows(arcs)
    return flows.reshape(rows, columns) > 0
