"""Exact masks of CUDA scores, solved and proved on the device.

The same problem, algorithm and objective as ``bisparse.masks.exact``: alternating midpoints in float32 until the
potentials prove each tile's mask optimal, then a choice among ties, then successive shortest augmenting paths in
float64 for what is left (hard ties, slow tiles, tiles cut by the edge). Blocks of up to 8 give each lane a whole tile,
larger ones a line. Between the stages the unfinished tiles are packed together in device memory. The host launches at
most five kernels and reads one small tensor at the end: objective, bound, counts and whether a score was invalid.

The mask equals the CPU's where the optimum is unique; the objective always does, up to the gap that both state.
Bits do not depend on the order in which the device works.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from bisparse.masks.exact import ExactAnswer
from bisparse.masks.gpu import counters as count
from bisparse.masks.gpu.completion import complete_tiles
from bisparse.masks.gpu.network import Comparators, selection_network
from bisparse.masks.gpu.row_wise import select_groups
from bisparse.masks.gpu.sweep_lines import sweep_lines
from bisparse.masks.gpu.sweep_tiles import sweep_tiles
from bisparse.masks.gpu.ties import settle_ties
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
        ValueError: 2**31 tiles or more.
        RuntimeError: a tile could not be completed; the CPU solves such scores.
    """
    with _on(scores.device):
        if isinstance(pattern, TransposableNM):
            options = tuning or tuning_of(pattern.block)
            return _solve_tiles(_Job.start(scores, pattern, magnitude, return_duals, options), warm_columns)
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


@dataclass(frozen=True, slots=True)
class _Job:
    """A solve and its tensors on the device; the kernels' parameters of these names are explained there."""

    scores: Tensor
    pattern: TransposableNM
    magnitude: bool
    keep_duals: bool
    tuning: Tuning
    mask: Tensor
    duals: Duals
    sums: Tensor  # (2, tiles): objective, slack
    queues: Tensor  # (3, tiles): two for the stages in turn, one for what they leave
    counters: Tensor

    @classmethod
    def start(
        cls, scores: Tensor, pattern: TransposableNM, magnitude: bool, keep_duals: bool, tuning: Tuning
    ) -> _Job:
        """Everything that the kernels write to."""
        batch, rows, cols = scores.shape
        device = scores.device
        down, across = -(-rows // pattern.block), -(-cols // pattern.block)
        tiles = batch * down * across
        if tiles >= 2**31:
            raise ValueError(
                f"{tiles} tiles: solve the matrices of {tuple(scores.shape)} in parts, 2**31 at a time"
            )
        return cls(
            scores, pattern, magnitude, keep_duals, tuning,
            mask=torch.empty(scores.shape, dtype=torch.bool, device=device),
            duals=Duals(
                torch.empty(batch, rows, across, device=device), torch.empty(batch, down, cols, device=device)
            ),
            sums=torch.zeros(2, tiles, dtype=torch.float64, device=device),
            queues=torch.empty(3, tiles, dtype=torch.int32, device=device),
            counters=torch.zeros(count.SIZE, dtype=torch.int32, device=device),
        )  # fmt: skip

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Rows, columns, tiles down and across, tiles in all."""
        down, across = self.duals.columns.shape[1], self.duals.rows.shape[2]
        return self.scores.shape[1], self.scores.shape[2], down, across, self.queues.shape[1]

    @property
    def source(self) -> tuple[Any, ...]:
        """The scores and how they lie."""
        return self.scores, *self.scores.stride()

    @property
    def flags(self) -> dict[str, Any]:
        """What every kernel is compiled for."""
        return {"M": self.pattern.block, "K": self.pattern.keep, "MAGNITUDE": self.magnitude, **_OPTIONS}

    @property
    def network(self) -> Comparators:
        """The comparators that find the two order statistics of a line."""
        return selection_network(self.pattern.block, (self.pattern.keep - 1, self.pattern.keep))

    def grid(self, tiles_each: int) -> tuple[int]:
        """Enough programs to fill the device; each takes every n-th chunk of tiles."""
        chunks, device = -(-self.queues.shape[1] // tiles_each), self.scores.device
        if device.type != "cuda":  # the interpreter
            return (min(chunks, 2),)
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        return (min(chunks, self.tuning.programs * processors),)


def _solve_tiles(job: _Job, warm: Tensor | None) -> ExactAnswer | None:
    if job.queues.numel():
        _sweep(job, warm)
        if job.pattern.block <= _LARGEST_TILE_PER_LANE:
            _settle(job)
            _complete(job, job.queues[0], job.counters[count.UNDECIDED.value :])
        else:
            _complete(job, job.queues[2], job.counters[count.STUCK.value :])
    objective, slack, *counts = torch.cat([job.sums.sum(1), job.counters.double()]).tolist()
    if counts[count.INVALID.value]:
        return None
    failed = int(counts[count.FAILED.value])
    if failed:
        raise RuntimeError(f"{failed} tiles were left incomplete: solve scores.cpu() instead")
    return ExactAnswer(
        job.mask, objective, objective + slack, int(counts[count.ROUNDS.value]),
        int(counts[count.REPAIRED.value]), job.duals if job.keep_duals else None,
    )  # fmt: skip


def _sweep(job: _Job, warm: Tensor | None) -> None:
    """Launch the stages; each takes the queue of the one before and leaves the next and the stuck tiles (row 2)."""
    tuning, duals, queues = job.tuning, job.duals, job.queues
    stages = tuning.rounds if warm is None else tuning.warm_rounds
    shape: dict[str, int] = {}
    kernel, words = sweep_lines, job.mask.view(torch.uint8)
    if job.pattern.block <= _LARGEST_TILE_PER_LANE:
        kernel, (words, shape["WORD"]) = sweep_tiles, _as_words(job.mask, job.pattern.block)
    else:
        shape["LINES"] = _power_of_two(job.pattern.block)
    before = [0, *accumulate(stages)]
    for stage, rounds in enumerate(stages):
        start = duals.columns if stage or warm is None else warm
        kernel[job.grid(tuning.tiles)](
            *job.source, words, duals.rows, duals.columns, start, job.sums, queues[(stage + 1) % 2],
            queues[stage % 2], queues[2], job.counters, *job.sizes, stage, int(stage + 1 == len(stages)), rounds,
            before[stage], int(warm is not None), int(job.keep_duals),
            NETWORK=job.network, TILES=tuning.tiles, num_warps=tuning.warps, **shape, **job.flags,
        )  # fmt: skip


def _settle(job: _Job) -> None:
    """Decide the ties of the stuck tiles; the queue of the undecided is row 0."""
    words, word = _as_words(job.mask, job.pattern.block)
    tuning, queues = job.tuning, job.queues
    settle_ties[job.grid(tuning.tiles)](
        *job.source, words, job.duals.rows, job.duals.columns, job.sums, queues[2], queues[0], job.counters,
        *job.sizes, int(job.keep_duals),
        NETWORK=job.network, TILES=tuning.tiles, WORD=word, num_warps=tuning.warps, **job.flags,
    )  # fmt: skip


def _complete(job: _Job, queue: Tensor, waiting: Tensor) -> None:
    tuning = job.tuning
    complete_tiles[job.grid(tuning.completion_tiles)](
        *job.source, job.mask.view(torch.uint8), job.duals.rows, job.duals.columns, job.sums, queue, waiting,
        job.counters, *job.sizes, int(job.keep_duals), TILES=tuning.completion_tiles,
        LINES=_power_of_two(job.pattern.block), num_warps=tuning.completion_warps, **job.flags,
    )  # fmt: skip


def _as_words(mask: Tensor, block: int) -> tuple[Tensor, int]:
    """The mask's bytes as the widest words that never straddle two lines of a block, and their width."""
    for width, dtype in ((8, torch.int64), (4, torch.int32)):
        if block % width == 0 and mask.shape[-1] % width == 0:
            return mask.view(-1).view(dtype), width
    return mask.view(torch.uint8), 1


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
