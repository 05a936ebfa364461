"""Sorting networks as tables of comparators, pruned to the positions that somebody reads."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["Comparators", "selection_network"]

Comparators = tuple[tuple[int, int], ...]


@lru_cache(maxsize=256)
def selection_network(size: int, wanted: tuple[int, ...]) -> Comparators:
    """Comparators (high, low) that bring the entries of the ``wanted`` ranks (0 = largest) to their positions.

    Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2 M) for any size, without the
    comparators that cannot reach a wanted position. The output of a comparator that nobody reads costs nothing: the
    compiler drops it.
    """
    live, kept = set(wanted), []
    for high, low in reversed(_merge_exchange(size)):
        if high in live or low in live:
            live |= {high, low}
            kept.append((high, low))
    return tuple(reversed(kept))


def _merge_exchange(size: int) -> list[tuple[int, int]]:
    comparators = []
    top = 1 << max(0, (size - 1).bit_length() - 1)
    part = top
    while part > 0:
        step, rest, distance = top, 0, part
        while True:
            comparators += [(i, i + distance) for i in range(size - distance) if i & part == rest]
            if step == part:
                break
            distance, step, rest = step - part, step >> 1, part
        part >>= 1
    return comparators
