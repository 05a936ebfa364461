"""Row-wise N:M masks on the device: a group per lane; ties go to the lower index."""

from __future__ import annotations

import triton
import triton.language as tl

from bisparse.masks.gpu.counters import INVALID
from bisparse.masks.gpu.lanes import UNSPECIALIZED, admit, ordered, store_line

__all__ = ["select_groups"]


@triton.jit(do_not_specialize=UNSPECIALIZED)
def select_groups(
    scores, batch_stride, row_stride, col_stride, mask, sums, counters, rows, cols, across, groups,
    M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr, GROUPS: tl.constexpr, WORD: tl.constexpr,
    MAGNITUDE: tl.constexpr,
):  # fmt: skip
    """Keep the K largest of every group; the tail of a row keeps at most K."""
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)
    live = group < groups
    line = group // across
    col = (group - line * across) * M
    matrix = line // rows
    first = scores + matrix * batch_stride + (line - matrix * rows) * row_stride + col * col_stride
    x = ()
    wrong = live & ~live
    for e in tl.static_range(M):
        real = live & (col + e < cols)
        value, bad = admit(tl.load(first + e * col_stride, mask=real, other=0.0), MAGNITUDE)
        x = x + (tl.where(real, value, -1.0),)  # below every score
        wrong = wrong | bad
    if tl.max(wrong.to(tl.int32), 0) > 0:
        tl.atomic_max(counters + INVALID, 1)

    threshold = ordered(x, NETWORK)[K - 1]
    room = tl.full(live.shape, K, tl.int32)
    for e in tl.static_range(M):
        room -= (x[e] > threshold).to(tl.int32)
    keep = ()
    total = tl.zeros(live.shape, tl.float64)
    for e in tl.static_range(M):
        tie = (x[e] == threshold) & (room > 0)
        kept = tie | (x[e] > threshold)
        room -= tie.to(tl.int32)
        keep = keep + (kept,)
        total += tl.where(kept & live & (x[e] > 0.0), x[e], 0.0).to(tl.float64)
    offset = line * cols + col
    if WORD > 1:
        store_line(mask, offset, keep, live, M, WORD)
    else:
        for e in tl.static_range(M):
            tl.store(mask + offset + e, keep[e], mask=live & (col + e < cols))
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))
