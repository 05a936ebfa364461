"""Launch shapes: how many tiles a program takes, by how many warps, and how the sweeps are staged."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tuning", "tuning_of"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be varied without changing any answer but the number of rounds.

    Attributes:
        tiles: tiles per program of a sweep; a power of two. All of them wait for the slowest.
        warps: warps per program of a sweep.
        rounds: sweeps per stage of a cold start; between stages the unfinished tiles are packed together.
        warm_rounds: the same for a warm start, which proves most tiles in one round.
        completion_tiles: tiles per program of the completion; a power of two.
        completion_warps: warps per program of the completion.
        programs: programs per multiprocessor of a launch that takes its work from a queue.
    """

    tiles: int
    warps: int
    rounds: tuple[int, ...]
    warm_rounds: tuple[int, ...]
    completion_tiles: int
    completion_warps: int
    programs: int = 16


def tuning_of(block: int) -> Tuning:
    """The default for blocks of this size; the stages are those of the CPU."""
    if block <= 4:
        return Tuning(128, 4, (3, 5, 24), (1, 4, 27), 8, 1)
    if block <= 8:
        return Tuning(32, 1, (4, 6, 22), (1, 5, 26), 2, 1)
    if block <= 16:
        return Tuning(2, 1, (7, 7, 18), (2, 8, 22), 1, 1)
    if block <= 32:
        return Tuning(1, 1, (9, 9, 14), (4, 9, 19), 1, 4)
    return Tuning(1, 1, (9, 9, 14), (4, 9, 19), 1, 8)
