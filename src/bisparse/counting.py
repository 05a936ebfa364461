"""How many 0/1 matrices have given line sums: the arithmetic behind mask diversity.

Two counts are needed: all line sums equal (complete tiles of a transposable pattern) and all line sums at
most K (tiles cut by the edge). Both come from one dynamic program over rows whose state is the *profile* of
the columns, the number of columns that hold 0, 1, 2, ... ones so far. Columns with equal sums are
interchangeable, so the profile replaces the far larger set of column-sum vectors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache

import numpy as np

__all__ = ["count_at_most", "count_equal", "estimate_at_most", "estimate_equal"]

_BITS = 7  # bits per level in a packed profile: room for 64 columns and a carry
_MASK = (1 << _BITS) - 1
_MAX_PROFILES = 4000


@lru_cache(maxsize=256)
def count_equal(size: int, keep: int) -> int:
    """Count the ``size`` x ``size`` 0/1 matrices whose row and column sums all equal ``keep``.

    Method: a matrix is an upper and a lower half whose column sums complement each other, so the program
    runs over half of the rows only. Exact integers; quick up to size 16, where 8 of 16 is the slowest
    (about two seconds).
    """
    keep = min(keep, size - keep)  # swapping zeros and ones is a bijection
    upper = _profiles(size // 2, size, keep, keep)
    lower = upper if size % 2 == 0 else _profiles(size - size // 2, size, keep, keep)
    factorials = [math.factorial(columns) for columns in range(size + 1)]
    total = 0
    for profile, count in upper.items():
        levels = _unpack(profile, keep + 1)
        other = lower.get(_pack(levels[::-1]), 0)
        # Both counts cover every arrangement of their profile (a multinomial number); only one may choose it.
        total += count * other * math.prod(factorials[columns] for columns in levels) // factorials[size]
    return total


@lru_cache(maxsize=256)
def count_at_most(rows: int, columns: int, keep: int) -> int | None:
    """Count the ``rows`` x ``columns`` 0/1 matrices whose row and column sums are all at most ``keep``.

    A side no longer than ``keep`` leaves the crossing lines free, which gives a closed form. Otherwise the
    dynamic program runs over the longer side; ``None`` where it would hold more than 4000 profiles (some
    seconds).
    """
    short, long = sorted((rows, columns))
    if short <= keep:
        free = sum(math.comb(long, ones) for ones in range(keep + 1))
        return int(free**short)
    if math.comb(short + keep, keep) > _MAX_PROFILES:
        return None
    return sum(_profiles(long, short, 0, keep).values())


def estimate_equal(size: int, keep: int) -> float:
    """Estimate log10 of :func:`count_equal` as C(M, K)^(2M) / C(M^2, MK) * e^(-1/2), M = ``size``, K =
    ``keep``.

    The first factor asks rows and columns independently, the second removes that their totals must agree.
    The ratio to the truth is 0.94 at 4 of 8 and 0.97 at 8 of 16, and tends to 1.
    """
    lines = 2 * size * math.log10(math.comb(size, keep))
    return lines - math.log10(math.comb(size * size, size * keep)) - 0.5 * math.log10(math.e)


def estimate_at_most(rows: int, columns: int, keep: int) -> float:
    """Estimate log10 of :func:`count_at_most` by the sum over totals t of rows(t) * columns(t) / C(RC, t).

    ``rows(t)`` counts the matrices with t ones whose rows obey the limit, ``columns(t)`` likewise: the same
    independence as in :func:`estimate_equal`, at every total that the limit permits. Against the exact
    counts it is high by a factor between 1.0 (small tiles) and 1.5 (63 x 63, keep 2).
    """
    cells = rows * columns
    per_row = _log_totals(rows, columns, keep)
    per_column = _log_totals(columns, rows, keep)
    totals = min(len(per_row), len(per_column), cells + 1)
    logs = [per_row[t] + per_column[t] - math.log(math.comb(cells, t)) for t in range(totals)]
    peak = max(logs)
    return (peak + math.log(math.fsum(math.exp(value - peak) for value in logs))) / math.log(10.0)


def _log_totals(lines: int, length: int, keep: int) -> list[float]:
    """Natural log of the ways that ``lines`` lines with at most ``keep`` ones hold t ones in all, per t."""
    keep = min(keep, length)
    base = np.array([math.comb(length, ones) for ones in range(keep + 1)], dtype=np.float64)
    poly, scale = np.ones(1), 0.0
    for _ in range(lines):
        poly = np.convolve(poly, base)
        scale += math.log(poly.max())
        poly /= poly.max()
    return [scale + math.log(value) if value > 0.0 else -math.inf for value in poly]


def _profiles(rows: int, columns: int, fewest: int, most: int) -> dict[int, int]:
    """Map each packed column profile after ``rows`` rows to its number of matrices.

    Every row holds between ``fewest`` and ``most`` ones and no column exceeds ``most``.
    """
    states = {_pack([columns]): 1}
    for row in range(rows):
        states = _add_row(states, min(row, most - 1), fewest, most)
    return states


def _add_row(states: dict[int, int], top: int, fewest: int, most: int) -> dict[int, int]:
    """Put one more row on every state; ``top`` is the highest level from which a column may still rise.

    Levels are treated one at a time from the top down, so that partial choices which agree merge at once.
    While the row is being built, the key also holds its number of ones, in the lowest bits.
    """
    columns = sum(_unpack(next(iter(states)), most + 1))
    choices = [[math.comb(n, taken) for taken in range(n + 1)] for n in range(columns + 1)]
    partial = {profile << _BITS: count for profile, count in states.items()}
    for level in range(top, -1, -1):
        shift = (level + 1) * _BITS
        rise = (1 << (shift + _BITS)) - (1 << shift) + 1  # a column moves up one level; the row gains a one
        merged: defaultdict[int, int] = defaultdict(int)
        for key, count in partial.items():
            available = (key >> shift) & _MASK
            ones = key & _MASK
            # The base-128 digits of the lower levels add up to at most 64, so the remainder is their sum.
            below = ((key & ((1 << shift) - 1)) >> _BITS) % _MASK
            needed = max(0, fewest - ones - below)
            key += needed * rise
            for ways in choices[available][needed : most - ones + 1]:
                merged[key] += count * ways
                key += rise
        partial = merged
    result: defaultdict[int, int] = defaultdict(int)
    for key, count in partial.items():
        result[key >> _BITS] += count
    return result


def _pack(levels: list[int]) -> int:
    return sum(columns << (level * _BITS) for level, columns in enumerate(levels))


def _unpack(profile: int, levels: int) -> list[int]:
    return [(profile >> (level * _BITS)) & _MASK for level in range(levels)]
