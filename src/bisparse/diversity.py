"""Mask diversity: how many different masks a pattern allows on a tensor.

A larger diversity is said to go with higher accuracy (Hubara et al. 2021). The numbers here are true counts
wherever they can be had; what is an estimate says so.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from bisparse.counting import count_at_most, count_equal, estimate_at_most, estimate_equal
from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured, parse_pattern

__all__ = ["MaskDiversity", "mask_diversity", "paper_transposable_diversity", "sequential_diversity"]

_EXACT_BLOCK = 16
_DIGITS = 4300  # the longest integer that Python converts to text by default


@dataclass(frozen=True, slots=True)
class MaskDiversity:
    """The number of masks.

    Attributes:
        log10: its decimal logarithm, always finite.
        exact: the number itself; ``None`` where only an estimate is known or the number is longer than
            asked for.
        estimated: whether ``log10`` is an estimate rather than the logarithm of the true count.
    """

    log10: float
    exact: int | None = field(repr=False)
    estimated: bool

    def __str__(self) -> str:
        if self.exact is not None and self.log10 < 15.0:
            return str(self.exact)
        return f"10^{self.log10:.2f}" + (" (estimate)" if self.estimated else "")


@dataclass(frozen=True, slots=True)
class _Factor:
    """``times`` independent pieces with ``count`` masks each, or with only an estimated logarithm."""

    times: int
    count: int | None
    estimate: float = 0.0

    @property
    def log10(self) -> float:
        return self.times * (self.estimate if self.count is None else math.log10(self.count))


def mask_diversity(
    pattern: str | Pattern, shape: Sequence[int], *, max_digits: int = _DIGITS
) -> MaskDiversity:
    """Count the masks that a pattern allows on a tensor.

    - *unstructured*: C(T, kept) over all T elements.
    - *N:M*: C(M, N) per group of the last dimension; a tail of c < M weights may keep at most N of them.
    - *transposable*: the number of M x M 0/1 matrices with all line sums N, per tile of the last two
      dimensions. True counts up to M = 16 (90 at 2:4, 116963796250 at 4:8); above, the closed form of
      :func:`bisparse.counting.estimate_equal`, and ``estimated`` is set. A tile cut by the edge to r x c
      counts the matrices with line sums *at most* N: exactly where the shorter side is at most N or the
      count is cheap (every tile of M <= 8, for example), else by
      :func:`bisparse.counting.estimate_at_most`, and ``estimated`` is set.

    Leading dimensions count as independent matrices: a convolution is viewed as (..., output, input).

    Args:
        pattern: a pattern or its text.
        shape: sizes of the tensor; at least two for transposable patterns, at least one for N:M.
        max_digits: longest exact integer worth building; beyond it ``exact`` is ``None`` and ``log10``
            remains.

    Returns:
        The logarithm, the exact integer where it can be had, and whether the logarithm is an estimate.

    Raises:
        ValueError: a negative size, or too few dimensions for the pattern.
    """
    pattern = parse_pattern(pattern)
    sizes = _sizes(shape)
    if isinstance(pattern, Unstructured):
        return _unstructured(pattern, math.prod(sizes), max_digits)
    factors = _rows(pattern, sizes) if isinstance(pattern, NM) else _tiles(pattern, sizes)
    return _product(factors, max_digits)


def sequential_diversity(
    pattern: str | NM, shape: Sequence[int], *, max_digits: int = _DIGITS
) -> MaskDiversity:
    """Count the row-wise N:M masks whose zeros are contiguous within each group.

    Reading chosen here, since the source was not at hand: the run of M-N zeros does not wrap around, so a
    group has N+1 masks. A tail of c < M weights has c-N contiguous zeros, N+1 masks, or just one if c <= N.

    Args:
        pattern: a row-wise N:M pattern or its text.
        shape: sizes of the tensor; groups run along the last dimension.
        max_digits: as in :func:`mask_diversity`.

    Raises:
        TypeError: the pattern is not row-wise N:M.
        ValueError: a negative size, or no dimension at all.
    """
    parsed = parse_pattern(pattern)
    if not isinstance(parsed, NM):
        raise TypeError(f"sequential zeros belong to row-wise N:M patterns such as 2:4, not to {parsed}")
    rows, length = _matrix(parsed, _sizes(shape), 1)
    groups, tail = divmod(length, parsed.block)
    runs = parsed.keep + 1
    factors = [_Factor(rows * groups, runs), _Factor(rows, runs if tail > parsed.keep else 1)]
    return _product(factors, max_digits)


def paper_transposable_diversity(pattern: str | TransposableNM, shape: Sequence[int]) -> MaskDiversity:
    """Evaluate the formula of Hubara et al. (2021): [M! (M-1)! ... (M-Z+1)!]^(T/M^2) with Z = M-N zeros.

    It multiplies the permutations that place the 1st, 2nd, ... zero of every row. That counts the order of
    the zeros, so it is no count of masks: right for one zero only, 1.6 times too high per tile at 2:4 and
    150 times at 4:8, and different for N and M-N where the truth is the same. Kept for comparison with that
    paper; use :func:`mask_diversity` for the true number.

    Args:
        pattern: a transposable pattern or its text.
        shape: sizes of the tensor; only their product T matters.

    Returns:
        ``log10`` of the formula, marked as estimated, without an exact integer.

    Raises:
        TypeError: the pattern is not transposable.
        ValueError: a negative size.
    """
    parsed = parse_pattern(pattern)
    if not isinstance(parsed, TransposableNM):
        raise TypeError(f"the formula belongs to transposable patterns such as 4:8t, not to {parsed}")
    tiles = math.prod(_sizes(shape)) / parsed.block**2
    per_tile = math.prod(math.factorial(size) for size in range(parsed.keep + 1, parsed.block + 1))
    return MaskDiversity(tiles * math.log10(per_tile), None, estimated=True)


def _unstructured(pattern: Unstructured, total: int, max_digits: int) -> MaskDiversity:
    kept = pattern.kept(total)
    log10 = (math.lgamma(total + 1) - math.lgamma(kept + 1) - math.lgamma(total - kept + 1)) / math.log(10.0)
    if log10 >= max_digits:
        return MaskDiversity(log10, None, estimated=False)
    count = math.comb(total, kept)
    return MaskDiversity(math.log10(count), count, estimated=False)


def _rows(pattern: NM, sizes: tuple[int, ...]) -> list[_Factor]:
    rows, length = _matrix(pattern, sizes, 1)
    groups, tail = divmod(length, pattern.block)
    tail_masks = sum(math.comb(tail, ones) for ones in range(pattern.keep + 1))
    return [_Factor(rows * groups, math.comb(pattern.block, pattern.keep)), _Factor(rows, tail_masks)]


def _tiles(pattern: TransposableNM, sizes: tuple[int, ...]) -> list[_Factor]:
    _matrix(pattern, sizes, 2)
    batch, (rows, columns) = math.prod(sizes[:-2]), sizes[-2:]
    down, bottom = divmod(rows, pattern.block)
    across, right = divmod(columns, pattern.block)
    pieces = [
        (down * across, pattern.block, pattern.block),
        (down, pattern.block, right),
        (across, bottom, pattern.block),
        (1, bottom, right),
    ]
    return [_tile(batch * times, r, c, pattern) for times, r, c in pieces if batch * times * r * c]


def _tile(times: int, rows: int, columns: int, pattern: TransposableNM) -> _Factor:
    keep, block = pattern.keep, pattern.block
    if rows == columns == block:
        if block <= _EXACT_BLOCK:
            return _Factor(times, count_equal(block, keep))
        return _Factor(times, None, estimate_equal(block, keep))
    count = count_at_most(rows, columns, keep)
    return _Factor(times, count, 0.0 if count is not None else estimate_at_most(rows, columns, keep))


def _product(factors: list[_Factor], max_digits: int) -> MaskDiversity:
    log10 = math.fsum(factor.log10 for factor in factors)
    estimated = any(factor.count is None for factor in factors)
    if estimated or log10 >= max_digits:
        return MaskDiversity(log10, None, estimated)
    exact = math.prod((factor.count or 1) ** factor.times for factor in factors)
    return MaskDiversity(log10, exact, estimated=False)


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(operator.index(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"shape {sizes} has a negative size")
    return sizes


def _matrix(pattern: Pattern, sizes: tuple[int, ...], dimensions: int) -> tuple[int, int]:
    """Return (number of rows, row length), after checking that the shape has enough dimensions."""
    if len(sizes) < dimensions:
        need = "(..., rows, columns)" if dimensions == 2 else "(..., columns)"
        raise ValueError(f"pattern {pattern} needs a shape {need}, got {sizes}; reshape the tensor first")
    return math.prod(sizes[:-1]), sizes[-1]
