"""How often an unstructured-sparse weight already obeys N:M, and which N it needs."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured, parse_pattern

__all__ = ["choose_keep", "relax_probability"]

_EXACT_STATES = 1000
_SIMULATED_TILES = 100_000


def relax_probability(rho: float, pattern: str | Pattern) -> float:
    """Probability that a group (or tile) of independent zeros of share ``rho`` needs no repair.

    Row-wise, a group of M obeys keep:M when at least M - keep entries are zero, a binomial tail:
    ``sum over i >= M - keep of C(M, i) rho^i (1 - rho)^(M - i)``.

    Transposable, an M x M tile must have at most ``keep`` non-zeros in every row *and* column. These 2 M
    events depend on each other; the exact probability is summed row by row over the column sums reached so
    far (their order does not matter, so the state is how many columns have each sum). Where there are more
    than 1000 such states (from about 8:16t on) it is a simulation of 100 000 tiles with a fixed seed, with a
    standard error of at most 0.0016.

    Args:
        rho: share of zeros, 0 to 1.
        pattern: row-wise or transposable.

    Raises:
        ValueError: ``rho`` outside 0..1, or an unstructured pattern, which has no groups.

    Source: Hubara et al., "Accelerated Sparse Neural Training", NeurIPS 2021; the transposable case is ours.
    """
    pattern = parse_pattern(pattern)
    if not 0.0 <= rho <= 1.0:
        raise ValueError(f"rho={rho}: the share of zeros lies between 0 and 1")
    if isinstance(pattern, Unstructured):
        raise ValueError(f"{pattern} has no groups that could obey or violate it")
    if isinstance(pattern, NM):
        return _row_probability(rho, pattern.keep, pattern.block)
    if math.comb(pattern.block + pattern.keep, pattern.keep) <= _EXACT_STATES:
        return _tile_probability(rho, pattern.keep, pattern.block)
    return _simulated(rho, pattern)


def _row_probability(rho: float, keep: int, block: int) -> float:
    return sum(
        math.comb(block, zeros) * rho**zeros * (1 - rho) ** (block - zeros)
        for zeros in range(block - keep, block + 1)
    )


def _tile_probability(rho: float, keep: int, block: int) -> float:
    ones = np.arange(block * block + 1)
    counts = _tile_counts(keep, block)
    return float((counts * (1 - rho) ** ones * rho ** (block * block - ones)).sum())


@lru_cache(maxsize=64)
def _tile_counts(keep: int, block: int) -> npt.NDArray[np.float64]:
    """Number of tiles with line sums <= keep, by number of ones.

    Row by row; a state is (columns with sum 0, with sum 1, ..., with sum keep).
    """
    states = {(block, *([0] * keep)): np.eye(1, block * block + 1)[0]}
    for _ in range(block):
        following: dict[tuple[int, ...], npt.NDArray[np.float64]] = {}
        for state, counts in states.items():
            for after, ways, ones in _row_choices(state, keep):
                shifted = np.zeros_like(counts)
                shifted[ones:] = ways * counts[: len(counts) - ones]
                following[after] = following[after] + shifted if after in following else shifted
        states = following
    return np.asarray(sum(states.values()), dtype=np.float64)


@lru_cache(maxsize=1 << 14)
def _row_choices(state: tuple[int, ...], keep: int) -> list[tuple[tuple[int, ...], int, int]]:
    """All ways to put at most ``keep`` ones into a row: (new state, number of ways, ones)."""
    choices = []
    for taken in product(*(range(min(count, keep) + 1) for count in state[:-1])):
        ones = sum(taken)
        if ones > keep:
            continue
        ways = math.prod(math.comb(count, t) for count, t in zip(state, taken, strict=False))
        after = [count - t for count, t in zip(state, (*taken, 0), strict=True)]
        for sum_before, t in enumerate(taken):
            after[sum_before + 1] += t
        choices.append((tuple(after), ways, ones))
    return choices


@lru_cache(maxsize=64)
def _thresholds(pattern: TransposableNM) -> Tensor:
    """Sorted shares of zeros from which each of the simulated tiles obeys the pattern.

    With a non-zero wherever a uniform number reaches rho, a line has at most ``keep`` of them exactly when
    its (keep + 1)-th largest number lies below rho.
    """
    generator = torch.Generator().manual_seed(0)
    block, order = pattern.block, pattern.block - pattern.keep
    found = []
    for _ in range(20):
        tiles = torch.rand(_SIMULATED_TILES // 20, block, block, generator=generator)
        lines = torch.maximum(tiles.kthvalue(order, 2).values, tiles.kthvalue(order, 1).values)
        found.append(lines.amax(1))
    return torch.cat(found).sort().values


def _simulated(rho: float, pattern: TransposableNM) -> float:
    thresholds = _thresholds(pattern)
    return float(torch.searchsorted(thresholds, rho)) / len(thresholds)


def choose_keep(
    density: float, block: int = 8, confidence: float = 0.95, *, transposable: bool = False
) -> int:
    """Smallest keep such that a group (or tile) needs no repair with more than the given probability.

    Args:
        density: share of non-zeros, 0 to 1.
        block: M.
        confidence: probability that must be exceeded.
        transposable: for tiles instead of groups.

    Returns:
        1 to ``block``; ``block`` means that no pattern fits and the layer should stay as it is.

    Raises:
        ValueError: density or confidence out of range.
    """
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density={density}: the share of non-zeros lies between 0 and 1")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence}: must lie strictly between 0 and 1")
    suffices = _tiles_obey if transposable else _rows_obey
    return next((keep for keep in range(1, block) if suffices(1.0 - density, keep, block, confidence)), block)


def _rows_obey(rho: float, keep: int, block: int, confidence: float) -> bool:
    return _row_probability(rho, keep, block) > confidence


def _tiles_obey(rho: float, keep: int, block: int, confidence: float) -> bool:
    """Whether a tile obeys with more than the given probability.

    With p for one line, it is at most p^M, since rows are independent, and at least p^(2M), since all lines
    obeying is made likelier by every zero (Harris' inequality); only in between is it worked out.
    """
    line = min(_row_probability(rho, keep, block), 1.0)
    if line**block <= confidence:
        return False
    return (
        line ** (2 * block) > confidence or relax_probability(rho, TransposableNM(keep, block)) > confidence
    )
