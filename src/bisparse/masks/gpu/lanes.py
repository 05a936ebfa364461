"""What the kernels share: where a tile lies, admission of scores, order statistics, queues. One problem per lane."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "ENOUGH",
    "ROUNDING",
    "UNSPECIALIZED",
    "admit",
    "append",
    "as_word",
    "ordered",
    "pack",
    "scaled",
    "shrink_and_restore",
    "spread",
    "store_line",
    "straddle",
    "tile_place",
    "unpack",
]

# Scores scaled by a power of two so that the largest of a tile lies in [1, 4): what s - u - v may be wrong by.
ROUNDING = tl.constexpr(2.0**-21)
ENOUGH = tl.constexpr(1e-8)  # slack that ties up to rounding may cost, per unit of the objective
INFINITY_BITS = tl.constexpr(0x7F800000)
LEAST_SCALE = tl.constexpr(1 << 23)
UNIT_SCALE = tl.constexpr(254 << 23)

# Sizes that change from call to call: a kernel is compiled once for all of them.
UNSPECIALIZED = [
    "rows", "cols", "down", "across", "tiles", "groups",
    "stage", "last", "rounds", "rounds_before", "warm", "keep_duals",
]  # fmt: skip


@triton.jit
def spread(number, like):
    """Whether a scalar is positive, in every lane."""
    return tl.full(like.shape, number, tl.int32) > 0


@triton.jit
def tile_place(tile, down, across, M: tl.constexpr):
    """Matrix, first row and first column of a tile, in 64 bits: entries may be more than 2**31."""
    rest = tile // across
    matrix = rest // down
    return (
        matrix.to(tl.int64),
        ((rest - matrix * down) * M).to(tl.int64),
        ((tile - rest * across) * M).to(tl.int64),
    )


@triton.jit
def admit(x, MAGNITUDE: tl.constexpr):
    """The score as float32, and whether it is none: NaN, infinite or, unless magnitudes are wanted, negative."""
    x = x.to(tl.float32)
    magnitude = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    bad = magnitude >= INFINITY_BITS
    if not MAGNITUDE:
        bad = bad | (x < 0.0)
    return tl.where(bad, 0.0, magnitude.to(tl.float32, bitcast=True)), bad


@triton.jit
def shrink_and_restore(largest):
    """Powers of two: by the first the largest score comes into [1, 4), denormals excepted; the second undoes it."""
    bits = largest.to(tl.int32, bitcast=True) & INFINITY_BITS
    bits = tl.minimum(tl.maximum(bits, LEAST_SCALE), UNIT_SCALE - LEAST_SCALE)
    return (-bits + UNIT_SCALE).to(tl.float32, bitcast=True), bits.to(tl.float32, bitcast=True)


@triton.jit
def exchange(x, HIGH: tl.constexpr, LOW: tl.constexpr):
    """A comparator: the larger of two entries of a tuple goes to HIGH, the smaller to LOW."""
    larger = tl.maximum(x[HIGH], x[LOW])
    smaller = tl.minimum(x[HIGH], x[LOW])
    return x[:HIGH] + (larger,) + x[HIGH + 1 : LOW] + (smaller,) + x[LOW + 1 :]


@triton.jit
def ordered(x, NETWORK: tl.constexpr):
    """The entries of a tuple, in descending order at the positions that the network was pruned to."""
    for c in tl.static_range(len(NETWORK)):
        x = exchange(x, NETWORK[c][0], NETWORK[c][1])
    return x


@triton.jit
def straddle(x, NETWORK: tl.constexpr, K: tl.constexpr):
    """The K-th and the (K+1)-th largest of the entries of a tuple: what a threshold must separate."""
    x = ordered(x, NETWORK)
    return x[K - 1], x[K]


@triton.jit
def scaled(x, factor):
    """Every entry of a tuple times a factor."""
    result = ()
    for e in tl.static_range(len(x)):
        result = result + (x[e] * factor,)
    return result


@triton.jit
def unpack(x, N: tl.constexpr):
    """The N = 2**k entries along the last axis as a tuple: no data moves where a thread holds them all."""
    shape: tl.constexpr = x.shape
    if N == 1:
        return (tl.reshape(x, shape[:-1]),)
    elif N == 2:
        even, odd = tl.split(x)
        return (even, odd)
    else:
        even, odd = tl.split(tl.reshape(x, shape[:-1] + (N // 2, 2)))
        evens = unpack(even, N // 2)
        odds = unpack(odd, N // 2)
        result = ()
        for e in tl.static_range(N // 2):
            result = result + (evens[e], odds[e])
        return result


@triton.jit
def pack(x, N: tl.constexpr):
    """The inverse of ``unpack``."""
    if N == 2:
        return tl.join(x[0], x[1])
    else:
        evens = ()
        odds = ()
        for e in tl.static_range(N // 2):
            evens = evens + (x[2 * e],)
            odds = odds + (x[2 * e + 1],)
        joined = tl.join(pack(evens, N // 2), pack(odds, N // 2))
        return tl.reshape(joined, x[0].shape + (N,))


@triton.jit
def append(queue, counter, items, wanted):
    """Append the wanted items to a queue in device memory; their order there means nothing."""
    flags = wanted.to(tl.int32)
    count = tl.sum(flags, 0)
    if count > 0:
        first = tl.atomic_add(counter, count)
        tl.store(queue + first + tl.cumsum(flags, 0) - 1, items, mask=wanted)


@triton.jit
def as_word(keep, FIRST: tl.constexpr, kind: tl.constexpr, WORD: tl.constexpr):
    """WORD flags of a tuple, from FIRST on, as the bytes of one word."""
    word = keep[FIRST].to(kind)
    for b in tl.static_range(1, WORD):
        word = word | (keep[FIRST + b].to(kind) << (8 * b))
    return word


@triton.jit
def store_line(mask, offset, keep, wanted, M: tl.constexpr, WORD: tl.constexpr):
    """Write M mask bytes from byte ``offset`` on, WORD of them at a time; ``mask`` points to such words."""
    for w in tl.static_range(M // WORD):
        word = as_word(keep, w * WORD, mask.dtype.element_ty, WORD)
        tl.store(mask + offset // WORD + w, word, mask=wanted)
