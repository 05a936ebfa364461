"""The optimum of one tile by HiGHS, with potentials: an oracle that shares nothing with the library."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linprog
from scipy.sparse import identity, kron, vstack
from torch import Tensor

from bisparse.masks.result import Duals
from bisparse.pattern import TransposableNM

Floats = npt.NDArray[np.float64]


def solve_tile(scores: Floats, keep: int, block: int) -> tuple[float, Floats, Floats]:
    """Return (optimal kept score, row potentials, column potentials) of one (r, c) tile."""
    rows, columns = scores.shape
    lines = vstack([kron(identity(rows), np.ones((1, columns))), kron(np.ones((1, rows)), identity(columns))])
    limits = np.full(rows + columns, float(keep))
    if rows == columns == block:
        answer = linprog(-scores.ravel(), A_eq=lines, b_eq=limits, bounds=(0, 1), method="highs")
        potentials = -answer.eqlin.marginals
    else:
        answer = linprog(-scores.ravel(), A_ub=lines, b_ub=limits, bounds=(0, 1), method="highs")
        potentials = np.maximum(-answer.ineqlin.marginals, 0.0)
    assert answer.status == 0, answer.message
    return -float(answer.fun), potentials[:rows], potentials[rows:]


def solve_matrix(scores: Tensor, pattern: TransposableNM) -> tuple[float, Duals]:
    """Return the optimum and the potentials of one (R, C) matrix, tile by tile."""
    values = scores.double().numpy()
    block = pattern.block
    down, across = -(-values.shape[0] // block), -(-values.shape[1] // block)
    rows = torch.zeros(values.shape[0], across, dtype=torch.float64)
    columns = torch.zeros(down, values.shape[1], dtype=torch.float64)
    total = 0.0
    for i in range(down):
        for j in range(across):
            down_part, across_part = slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)
            best, u, v = solve_tile(values[down_part, across_part], pattern.keep, block)
            total += best
            rows[down_part, j] = torch.from_numpy(u)
            columns[i, across_part] = torch.from_numpy(v)
    return total, Duals(rows, columns)
