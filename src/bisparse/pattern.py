"""What masks are allowed: patterns as small values, parsed once from text at the edge.

``N:M`` means keep:block throughout: N of every M consecutive weights along the input dimension are *kept*.
(The 2021 paper on transposable masks counts zeros instead, so its N:M is M-N:M here; equal at 2:4 and 4:8.)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["MAX_BLOCK", "NM", "Pattern", "TransposableNM", "Unstructured", "parse_pattern", "part_of"]

MAX_BLOCK = 64

_FORMS = '"2:4" (keep:block), "4:8t" (transposable), "unstructured:0.9" (share of zeros)'
_KEEP_BLOCK = re.compile(r"([+-]?\d+)\s*:\s*([+-]?\d+)\s*(t?)")


@dataclass(frozen=True, slots=True)
class _KeepBlock:
    """``keep`` of every ``block``; which entries form a block is what the patterns differ in."""

    keep: int
    block: int

    def __post_init__(self) -> None:
        _check_keep_block(self.keep, self.block, str(self))

    @property
    def density(self) -> float:
        """Share of the weights that are kept."""
        return self.keep / self.block


@dataclass(frozen=True, slots=True)
class NM(_KeepBlock):
    """Keep ``keep`` of every ``block`` consecutive weights of a row (the input dimension).

    A tail group, cut short by the edge, keeps at most ``keep``.

    Raises:
        TypeError: a number is not an integer.
        ValueError: the block is outside 2..64, or ``keep`` is outside 1..block-1.
    """

    def __str__(self) -> str:
        return f"{self.keep}:{self.block}"


@dataclass(frozen=True, slots=True)
class TransposableNM(_KeepBlock):
    """Keep ``keep`` in every row and every column of each ``block`` x ``block`` tile.

    The weight and its transpose then both obey ``keep:block`` with one mask. Tiles cut by the edge keep at
    most ``keep`` per line.

    Raises:
        TypeError: a number is not an integer.
        ValueError: the block is outside 2..64, or ``keep`` is outside 1..block-1.
    """

    def __str__(self) -> str:
        return f"{self.keep}:{self.block}t"


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Zero the share ``sparsity`` of all weights of a tensor, anywhere.

    Raises:
        TypeError: ``sparsity`` is not a number.
        ValueError: ``sparsity`` is outside [0, 1).
    """

    sparsity: float

    def __post_init__(self) -> None:
        if isinstance(self.sparsity, bool) or not isinstance(self.sparsity, (int, float)):
            raise TypeError(f"sparsity must be a number in [0, 1), got {self.sparsity!r}")
        if not (math.isfinite(self.sparsity) and 0.0 <= self.sparsity < 1.0):
            raise ValueError(f"unstructured:{self.sparsity}: the share of zeros must lie in [0, 1)")
        # abs() turns -0.0 into 0.0, so that equal patterns also print alike.
        object.__setattr__(self, "sparsity", abs(float(self.sparsity)))

    @property
    def density(self) -> float:
        """Share of the weights that are kept."""
        return 1.0 - self.sparsity

    def kept(self, total: int) -> int:
        """How many of ``total`` weights stay: all but the nearest integer to ``sparsity * total``."""
        return total - round(self.sparsity * total)

    def __str__(self) -> str:
        return f"unstructured:{self.sparsity!r}"


Pattern: TypeAlias = NM | TransposableNM | Unstructured


def part_of(total: int, share: float) -> int:
    """floor(share * total) for the share as it is written: 0.29 of 100 is 29, though 0.29 * 100 < 29 in floating point.

    Args:
        total: a number of weights, below 10**12.
        share: from 0 to 1.
    """
    return math.floor(share * total * (1.0 + 1e-12))


def parse_pattern(pattern: str | Pattern) -> Pattern:
    """Read a pattern from text; a pattern passes through unchanged, so every entry point can call this once.

    Args:
        pattern: ``"2:4"``, ``"4:8t"``, ``"unstructured:0.9"`` (any case, blanks ignored) or a pattern.

    Returns:
        The pattern; ``parse_pattern(str(p)) == p`` for every pattern p.

    Raises:
        TypeError: neither text nor a pattern.
        ValueError: text of another form, or numbers out of range.
    """
    if isinstance(pattern, (NM, TransposableNM, Unstructured)):
        return pattern
    if not isinstance(pattern, str):
        raise TypeError(
            f"a pattern is text or a pattern object, got {type(pattern).__name__}; write {_FORMS}"
        )
    text = pattern.strip().lower()
    head, _, tail = text.partition(":")
    if head.rstrip() == "unstructured":
        return Unstructured(_number(tail, pattern))
    match = _KEEP_BLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot read the pattern {pattern!r}; write {_FORMS}")
    kind = TransposableNM if match[3] else NM
    return kind(int(match[1]), int(match[2]))


def _number(text: str, pattern: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"cannot read the share of zeros in {pattern!r}; write {_FORMS}") from None


def _check_keep_block(keep: int, block: int, text: str) -> None:
    for name, value in (("keep", keep), ("block", block)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
    rule = "N:M means keep:block, N of every M weights are kept"
    if not 2 <= block <= MAX_BLOCK:
        raise ValueError(f"{text}: block must be between 2 and {MAX_BLOCK} ({rule})")
    if keep < 1:
        raise ValueError(f"{text}: keep must be at least 1 ({rule})")
    if keep == block:
        raise ValueError(f"{text}: keep must be smaller than block, or every weight stays ({rule})")
    if keep > block:
        raise ValueError(f"{text}: keep must be smaller than block ({rule}); did you mean {block}:{keep}?")
