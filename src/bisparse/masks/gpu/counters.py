"""Where the kernels count, in one small integer tensor on the device: read once, at the end of a solve."""

from __future__ import annotations

import triton.language as tl

__all__ = ["FAILED", "INVALID", "REPAIRED", "ROUNDS", "SIZE", "STUCK", "UNDECIDED"]

# Entry k = 1, 2 ... counts the tiles that wait for stage k of the sweeps.
STUCK = tl.constexpr(8)  # tiles that the sweeps leave
UNDECIDED = tl.constexpr(12)  # of these, tiles that wait for the completion
INVALID = tl.constexpr(9)  # not zero: a score is NaN, infinite or negative
ROUNDS = tl.constexpr(10)  # the largest number of sweeps of a tile
REPAIRED = tl.constexpr(11)  # tiles that needed augmenting paths
FAILED = tl.constexpr(13)  # tiles that the completion could not finish: none, in exact arithmetic
SIZE = 16
