"""Exact masks of CUDA scores, solved and proved on the device.

The same problem, algorithm and objective as ``bisparse.masks.exact``: alternating midpoints in float32 until the
potentials prove each tile's mask optimal, then successive shortest augmenting paths in float64 for what is left (ties,
slow tiles, tiles cut by the edge). Blocks of up to 8 give each lane a whole tile, larger ones a line. Between the
stages the unfinished tiles are packed together in device memory. The host launches five kernels and reads one small
tensor at the end: objective, bound, counts and whether a score was invalid.

The mask equals the CPU's where the optimum is unique; the objective always does, up to the gap that both state.
Bits do not depend on the order in which the device works.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from bisparse.masks.exact import ExactAnswer
from bisparse.masks.gpu import counters as count
from bisparse.masks.gpu.completion import complete_tiles
from bisparse.masks.gpu.network import selection_network
from bisparse.masks.gpu.row_wise import select_groups
from bisparse.masks.gpu.sweep_lines import sweep_lines
from bisparse.masks.gpu.sweep_tiles import sweep_tiles
from bisparse.masks.gpu.tuning import Tuning, tuning_of
from bisparse.masks.gpu.unstructured import keep_largest
from bisparse.masks.result import Duals
from bisparse.pattern import NM, Pattern, TransposableNM

__all__ = ["solve_on_device"]

_GROUPS = 256  # row-wise groups per program
_LARGEST_TILE_PER_LANE = 8
# No fused multiply-add: s - v must round alike in every kernel. No pipelining of loops: nothing is prefetched.
_OPTIONS = {"enable_fp_fusion": False, "num_stages": 1}


def solve_on_device(
    scores: Tensor,
    pattern: Pattern,
    *,
    magnitude: bool = False,
    warm_columns: Tensor | None = None,
    return_duals: bool = False,
    tuning: Tuning | None = None,
) -> ExactAnswer | None:
    """Solve (batch, rows, columns) scores exactly; None if an entry is NaN, infinite or (unsigned) negative.

    Args:
        scores: float16, bfloat16 or float32, any strides, on the device.
        pattern: row-wise N:M, transposable N:M or unstructured (over all entries of all matrices together).
        magnitude: solve for ``|scores|`` without a copy (unstructured: with one).
        warm_columns: (batch, ceil(rows / M), columns) float32 potentials on the device to start from.
        return_duals: also return the certificate of a transposable mask.
        tuning: launch shapes, by default those of the block size.

    Cost: a few passes over memory for M <= 8. Besides the mask it takes at most 28 bytes a tile and 8 M bytes a tile
    for the potentials of unfinished tiles.

    Raises:
        RuntimeError: a tile could not be completed; the CPU solves such scores.
    """
    with _on(scores.device):
        if isinstance(pattern, TransposableNM):
            options = tuning or tuning_of(pattern.block)
            return _solve_tiles(scores, pattern, magnitude, warm_columns, return_duals, options)
        if isinstance(pattern, NM):
            return _solve_rows(scores, pattern, magnitude)
        values = scores.abs() if magnitude else scores
        valid = ((values >= 0) & (values < torch.inf)).all()
        mask, total = keep_largest(values, pattern.kept(values.numel()))
    objective, is_valid = torch.stack([total, valid.double()]).tolist()
    return ExactAnswer(mask, objective, objective) if is_valid else None


def _solve_rows(scores: Tensor, pattern: NM, magnitude: bool) -> ExactAnswer | None:
    batch, rows, cols = scores.shape
    across = -(-cols // pattern.block)
    groups = batch * rows * across
    mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    programs = -(-groups // _GROUPS)
    sums = torch.empty(programs, dtype=torch.float64, device=scores.device)
    counters = torch.zeros(count.SIZE, dtype=torch.int32, device=scores.device)
    words, word = _as_words(mask, pattern.block)
    if groups:
        network = selection_network(pattern.block, (pattern.keep - 1,))
        select_groups[(programs,)](
            scores, *scores.stride(), words, sums, counters, rows, cols, across, groups,
            M=pattern.block, K=pattern.keep, NETWORK=network, GROUPS=_GROUPS, WORD=word, MAGNITUDE=magnitude,
            num_warps=4, **_OPTIONS,
        )  # fmt: skip
    objective, *counts = torch.cat([sums.sum().reshape(1), counters.double()]).tolist()
    return None if counts[count.INVALID.value] else ExactAnswer(mask, objective, objective)


def _solve_tiles(
    scores: Tensor,
    pattern: TransposableNM,
    magnitude: bool,
    warm: Tensor | None,
    return_duals: bool,
    tuning: Tuning,
) -> ExactAnswer | None:
    batch, rows, cols = scores.shape
    down, across = -(-rows // pattern.block), -(-cols // pattern.block)
    tiles = batch * down * across
    device = scores.device
    mask = torch.empty(scores.shape, dtype=torch.bool, device=device)
    duals = Duals(
        torch.empty(batch, rows, across, device=device), torch.empty(batch, down, cols, device=device)
    )
    sums = torch.zeros(2, tiles, dtype=torch.float64, device=device)  # objective, slack
    counters = torch.zeros(count.SIZE, dtype=torch.int32, device=device)
    if tiles:
        queues = torch.empty(3, tiles, dtype=torch.int32, device=device)
        shape = (rows, cols, down, across, tiles)
        flags = {"M": pattern.block, "K": pattern.keep, "MAGNITUDE": magnitude}
        _sweep(scores, mask, duals, warm, sums, queues, counters, shape, return_duals, flags, tuning)
        _complete(scores, mask, duals, sums, queues[2], counters, shape, return_duals, flags, tuning)
    objective, slack, *counts = torch.cat([sums.sum(1), counters.double()]).tolist()
    if counts[count.INVALID.value]:
        return None
    if counts[count.FAILED.value]:
        raise RuntimeError(
            f"{counts[count.FAILED.value]:.0f} tiles were left incomplete: solve scores.cpu() instead"
        )
    return ExactAnswer(
        mask, objective, objective + slack, int(counts[count.ROUNDS.value]), int(counts[count.REPAIRED.value]),
        duals if return_duals else None,
    )  # fmt: skip


def _sweep(
    scores: Tensor, mask: Tensor, duals: Duals, warm: Tensor | None, sums: Tensor, queues: Tensor, counters: Tensor,
    shape: tuple[int, ...], keep_duals: bool, flags: dict[str, Any], tuning: Tuning,
) -> None:  # fmt: skip
    """Launch the stages; each takes the queue of the one before and leaves the next and the stuck tiles (row 2)."""
    block, keep = flags["M"], flags["K"]
    stages = tuning.rounds if warm is None else tuning.warm_rounds
    flags = {**flags, "NETWORK": selection_network(block, (keep - 1, keep))}
    if block <= _LARGEST_TILE_PER_LANE:
        kernel, (words, flags["WORD"]) = sweep_tiles, _as_words(mask, block)
    else:
        kernel, words, flags["LINES"] = sweep_lines, mask.view(torch.uint8), _power_of_two(block)
    before = [0, *accumulate(stages)]
    started = duals.columns if warm is None else warm
    for stage, rounds in enumerate(stages):
        kernel[(_programs(scores.device, shape[-1], tuning.tiles, tuning.programs),)](
            scores, *scores.stride(), words, duals.rows, duals.columns, duals.columns if stage else started, sums,
            queues[(stage + 1) % 2], queues[stage % 2], queues[2], counters, *shape, stage,
            int(stage + 1 == len(stages)), rounds, before[stage], int(warm is not None), int(keep_duals),
            TILES=tuning.tiles, num_warps=tuning.warps, **flags, **_OPTIONS,
        )  # fmt: skip


def _complete(
    scores: Tensor, mask: Tensor, duals: Duals, sums: Tensor, stuck: Tensor, counters: Tensor, shape: tuple[int, ...],
    keep_duals: bool, flags: dict[str, Any], tuning: Tuning,
) -> None:  # fmt: skip
    complete_tiles[(_programs(scores.device, shape[-1], tuning.completion_tiles, tuning.programs),)](
        scores, *scores.stride(), mask.view(torch.uint8), duals.rows, duals.columns, sums, stuck, counters, *shape,
        int(keep_duals), TILES=tuning.completion_tiles, LINES=_power_of_two(flags["M"]),
        num_warps=tuning.completion_warps, **flags, **_OPTIONS,
    )  # fmt: skip


def _as_words(mask: Tensor, block: int) -> tuple[Tensor, int]:
    """The mask's bytes as the widest words that never straddle two lines of a block, and their width."""
    for width, dtype in ((8, torch.int64), (4, torch.int32)):
        if block % width == 0 and mask.shape[-1] % width == 0:
            return mask.view(-1).view(dtype), width
    return mask.view(torch.uint8), 1


def _programs(device: torch.device, tiles: int, tiles_each: int, per_processor: int) -> int:
    """Enough programs to fill the device; each takes every n-th chunk of tiles."""
    chunks = -(-tiles // tiles_each)
    if device.type != "cuda":  # the interpreter
        return min(chunks, 2)
    return min(chunks, per_processor * torch.cuda.get_device_properties(device).multi_processor_count)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
