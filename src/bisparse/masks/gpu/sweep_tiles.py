"""Alternating midpoints with a tile per lane: blocks of up to 8, whose M x M scores fit into one thread's registers."""

from __future__ import annotations

import triton
import triton.language as tl

from bisparse.masks.gpu.counters import INVALID, ROUNDS, STUCK
from bisparse.masks.gpu.lanes import (
    ROUNDING,
    UNSPECIALIZED,
    admit,
    append,
    as_word,
    pack,
    scaled,
    shrink_and_restore,
    spread,
    store_line,
    straddle,
    tile_place,
    unpack,
)

__all__ = ["sweep_tiles"]


@triton.jit
def load_line(x, step, live, M: tl.constexpr):
    """M entries per lane as a tuple: by one load where M is a power of two."""
    if M & (M - 1) == 0:
        place = x[:, None] + tl.arange(0, M)[None, :] * step
        line = unpack(tl.load(place, mask=live[:, None], other=0.0), M)
    else:
        line = ()
        for e in tl.static_range(M):
            line = line + (tl.load(x + e * step, mask=live, other=0.0),)
    return line


@triton.jit
def store_duals(x, step, line, wanted, M: tl.constexpr):
    """The inverse of ``load_line``."""
    if M & (M - 1) == 0:
        tl.store(x[:, None] + tl.arange(0, M)[None, :] * step, pack(line, M), mask=wanted[:, None])
    else:
        for e in tl.static_range(M):
            tl.store(x + e * step, line[e], mask=wanted)


@triton.jit
def load_tiles(scores, row_stride, col_stride, live, M: tl.constexpr, MAGNITUDE: tl.constexpr):
    """Scaled scores, row by row, as a tuple of M * M vectors; the scale and its inverse; which lanes are bad."""
    raw = ()
    if M & (M - 1) == 0:  # one load: the compiler looks at everything that hangs on each of them
        e = tl.arange(0, M)
        place = scores[:, None, None] + e[None, :, None] * row_stride + e[None, None, :] * col_stride
        columns = unpack(tl.load(place, mask=live[:, None, None], other=0.0), M)
        by_column = ()
        for j in tl.static_range(M):
            by_column = by_column + unpack(columns[j], M)
        for i in tl.static_range(M):
            for j in tl.static_range(M):
                raw = raw + (by_column[j * M + i],)
    else:
        for i in tl.static_range(M):
            raw = raw + load_line(scores + i * row_stride, col_stride, live, M)
    s = ()
    largest = tl.zeros(live.shape, tl.float32)
    wrong = live & ~live
    for e in tl.static_range(M * M):
        x, bad = admit(raw[e], MAGNITUDE)
        s = s + (x,)
        largest = tl.maximum(largest, x)
        wrong = wrong | bad
    shrink, restore = shrink_and_restore(largest)
    return scaled(s, shrink), shrink, restore, wrong


@triton.jit
def start_columns(x, live, shrink, later, M: tl.constexpr):
    """Column potentials to start from; a caller's that would drown the scores in rounding become 0."""
    line = scaled(load_line(x, 1, live, M), shrink)
    v = ()
    for e in tl.static_range(M):
        v = v + (tl.where(later | (tl.abs(line[e]) <= 4.0), line[e], 0.0),)
    return v


@triton.jit
def half_sweep(
    s, across, own, relax,
    M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr, LINE: tl.constexpr, ENTRY: tl.constexpr,
):  # fmt: skip
    """Move each line's potential between its K-th and (K+1)-th largest of s - across.

    Returns the new potentials, the least distance of the old and of the new ones from the two order statistics, the
    largest change and the number of lines whose two order statistics are equal.
    """
    new = ()
    old_slack = own[0] * 0.0 + 1.0
    new_slack = old_slack
    moved = old_slack * 0.0
    ties = moved.to(tl.int32)
    for line in tl.static_range(M):
        x = ()
        for e in tl.static_range(M):
            x = x + (s[line * LINE + e * ENTRY] - across[e],)
        above, below = straddle(x, NETWORK, K)
        old = own[line]
        spread = above - below
        point = below + 0.5 * spread
        if M >= 8:  # overshoot the midpoint by 60%, inside the middle three quarters of the interval
            margin = 0.125 * spread
            far = tl.minimum(tl.maximum(old + 1.6 * (point - old), below + margin), above - margin)
            point = tl.where(relax, far, point)
        new = new + (point,)
        moved = tl.maximum(moved, tl.abs(point - old))
        ties += (spread <= 0.0).to(tl.int32)
        old_slack = tl.minimum(old_slack, tl.minimum(above - old, old - below))
        new_slack = tl.minimum(new_slack, tl.minimum(above - point, point - below))
    return new, old_slack, new_slack, moved, ties


@triton.jit
def advance(own, new, held, M: tl.constexpr):
    """The new potentials, except in lanes that are held."""
    result = ()
    for e in tl.static_range(M):
        result = result + (tl.where(held, own[e], new[e]),)
    return result


@triton.jit
def sweep(s, u, v, idle, rounds, stage, M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr):
    """Sweep until every lane is proved or tied, at most ``rounds`` times; finished lanes are frozen."""
    proved = idle & ~idle
    tied = idle
    columns_hold = proved
    many_before = proved
    t = 0
    while (t < rounds) & (tl.min((proved | tied).to(tl.int32), 0) == 0):
        relax = t + stage > 0
        new, old_slack, new_slack, _, _ = half_sweep(s, v, u, relax, M, K, NETWORK, M, 1)
        row_proof = columns_hold & (old_slack > 0.0)
        proved = proved | (row_proof & ~tied)
        u = advance(u, new, proved | tied, M)

        new, column_slack, after, moved, ties = half_sweep(s, u, v, relax, M, K, NETWORK, 1, M)
        column_proof = (new_slack > 0.0) & (column_slack > 0.0) & ~row_proof
        proved = proved | (column_proof & ~tied)
        columns_hold = after > 0.0
        many = ties * 4 > M
        still = (ties > 0) & (moved < 16 * ROUNDING)
        held = proved | tied
        tied = tied | (((many & many_before) | still) & ~proved)
        many_before = many
        v = advance(v, new, held, M)
        t += 1
    return u, v, proved, tied & ~idle, t


@triton.jit
def store_proved(mask, offset, cols, sums, s, u, v, restore, proved, M: tl.constexpr, WORD: tl.constexpr):
    """Write the masks [s - v > u] of the proved lanes and what they keep."""
    total = restore.to(tl.float64) * 0.0
    words = ()
    for i in tl.static_range(M):
        keep = ()
        for j in tl.static_range(M):
            kept = s[i * M + j] - v[j] > u[i]
            keep = keep + (kept,)
            total += tl.where(kept, s[i * M + j], 0.0).to(tl.float64)
        if WORD == M:
            words = words + (as_word(keep, 0, mask.dtype.element_ty, WORD),)
        else:
            store_line(mask, offset + i * cols, keep, proved, M, WORD)
    if WORD == M:
        place = (offset // M)[:, None] + tl.arange(0, M)[None, :] * (cols // M)
        tl.store(mask + place, pack(words, M), mask=proved[:, None])
    tl.store(sums, total * restore.to(tl.float64), mask=proved)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def sweep_tiles(
    scores, batch_stride, row_stride, col_stride, mask, row_duals, column_duals, start, sums, queue, slow,
    stuck, counters, rows, cols, down, across, tiles, stage, last, rounds, rounds_before, warm, keep_duals,
    M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr, TILES: tl.constexpr, WORD: tl.constexpr,
    MAGNITUDE: tl.constexpr,
):  # fmt: skip
    """One stage: sweep the tiles that wait for it (stage 0: all), store the proved ones, queue the others."""
    count = tl.where(stage > 0, tl.load(counters + stage), tiles)
    most = 0
    for chunk in range(tl.program_id(0), tl.cdiv(count, TILES), tl.num_programs(0)):
        lane = chunk * TILES + tl.arange(0, TILES)
        live = lane < count
        later = spread(stage, live)
        tile = tl.where(later, tl.load(queue + lane, mask=live & later, other=0), lane)
        matrix, row, col = tile_place(tile, down, across, M)
        whole = live & (row + M <= rows) & (col + M <= cols)
        first = scores + matrix * batch_stride + row * row_stride + col * col_stride
        s, shrink, restore, bad = load_tiles(first, row_stride, col_stride, whole, M, MAGNITUDE)
        if tl.max(bad.to(tl.int32), 0) > 0:
            tl.atomic_max(counters + INVALID, 1)

        row_dual = (matrix * rows + row) * across + col // M
        column_dual = (matrix * down + row // M) * cols + col
        u = scaled(load_line(row_duals + row_dual, across, whole & later, M), shrink)
        v = start_columns(start + column_dual, whole & spread(stage + warm, live), shrink, later, M)
        u, v, proved, tied, taken = sweep(s, u, v, ~whole, rounds, stage, M, K, NETWORK)
        most = tl.maximum(most, taken)

        store_proved(
            mask, (matrix * rows + row) * cols + col, cols, sums + tile, s, u, v, restore, proved, M, WORD
        )
        needed = whole & (spread(keep_duals, live) | ~proved)
        store_duals(row_duals + row_dual, across, scaled(u, restore), needed, M)
        store_duals(column_duals + column_dual, 1, scaled(v, restore), needed, M)
        left = live & ~proved
        give_up = tied | ~whole | spread(last, live)
        append(stuck, counters + STUCK, tile, left & give_up)
        append(slow, counters + stage + 1, tile, left & ~give_up)
    if most > 0:
        tl.atomic_max(counters + ROUNDS, rounds_before + most)
