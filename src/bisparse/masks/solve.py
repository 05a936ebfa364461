"""The one entry from scores to masks: validate, dispatch to a method, return mask and proof."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from bisparse.masks.exact import ExactAnswer, solve_exact
from bisparse.masks.result import Duals, MaskResult
from bisparse.masks.route import on_device
from bisparse.masks.scores_input import Scores, as_scores, first_invalid
from bisparse.pattern import Pattern, TransposableNM, parse_pattern

__all__ = ["METHODS", "solve_mask"]

# Method name -> module and function of an approximate or slow solver of transposable masks. To add one, add a line.
_TRANSPOSABLE_METHODS = {
    "greedy": ("bisparse.masks.approximate.greedy", "solve_greedy"),
    "two_approx": ("bisparse.masks.approximate.two_approx", "solve_two_approx"),
    "entropic": ("bisparse.masks.approximate.entropic", "solve_entropic"),
    "flow": ("bisparse.masks.approximate.flow", "solve_flow"),
}

METHODS = ("exact", *_TRANSPOSABLE_METHODS)


def solve_mask(
    scores: Scores,
    pattern: str | Pattern,
    *,
    method: str = "exact",
    magnitude: bool = False,
    warm_start: MaskResult | Duals | None = None,
    return_duals: bool = False,
    threads: int | None = None,
) -> MaskResult:
    """Choose the mask that keeps the largest sum of scores among all masks that the pattern allows.

    Rows are output features and columns input features. Complete M x M tiles of a transposable pattern keep exactly
    N per row and column; tiles cut by the edge, and the tail group of a row-wise pattern, keep at most N per line.

    Args:
        scores: (..., rows, columns), what it is worth to keep each entry: torch tensor or numpy array, any real
            dtype, any strides, any device. float16 to float32 are solved in float32, float64 and integers in float64
            (integers beyond 2**53 are rounded to it).
        pattern: ``"2:4"`` (row-wise), ``"4:8t"`` (transposable), ``"unstructured:0.9"`` (share of zeros over the
            whole tensor) or a pattern value.
        method: ``"exact"`` for every pattern. For transposable patterns also, for comparison, ``"greedy"``,
            ``"two_approx"``, ``"entropic"`` and ``"flow"`` (needs ``pip install "bisparse[flow]"``).
        magnitude: solve for ``|scores|`` without making a copy; otherwise a negative score is an error.
        warm_start: an earlier result of the same shape (with duals) or its duals: fewer sweeps when scores moved
            little. The objective is the same as without; the mask too where the optimum is unique.
        return_duals: return the certificate, for ``verify_mask``.
        threads: upper limit, by default ``torch.get_num_threads()``; fewer are used where the system starts no
            more. The answer's bits do not depend on it.

    Returns:
        MaskResult; ``result.gap`` is the proven optimality gap (exact: at most 1e-7, typically 0). The mask is a
        boolean tensor on the scores' device. Exact masks of CUDA scores (float16 to float32, with Triton) are solved
        there, see ``bisparse.masks.triton_exact``, once a comparison with the CPU has passed on that device; all others
        on the CPU.

    Raises:
        TypeError: scores that are no dense real tensor or array.
        ValueError: fewer than two dimensions; NaN, infinite or negative scores (the first position is named); an
            unknown method or one that does not solve this pattern; duals asked of a method or pattern that has none;
            a warm start of another shape.
        ImportError: method "flow" without OR-tools.

    Guarantee: linear-programming duality; see ``bisparse.masks.exact``.
    """
    start = time.perf_counter()
    pattern = parse_pattern(pattern)
    _check_method(method, pattern, warm_start, return_duals)
    shape = tuple(scores.shape) if hasattr(scores, "shape") else ()
    there = method == "exact" and on_device(scores) and _is_trusted(pattern, scores)
    matrices = as_scores(scores, stay=there)
    threads = _thread_count(threads)
    if method == "exact":
        warm = _warm_columns(warm_start, matrices, pattern, check=not there)
        solve = _device_solver() if there else partial(solve_exact, threads=threads)
        answer = solve(matrices, pattern, magnitude=magnitude, warm_columns=warm, return_duals=return_duals)
    else:
        answer = _solve_with(_TRANSPOSABLE_METHODS[method], matrices, pattern, magnitude)
    if answer is None:
        raise ValueError(first_invalid(matrices.reshape(shape), signed=magnitude))
    device = scores.device if isinstance(scores, Tensor) else torch.device("cpu")
    return MaskResult(
        mask=answer.mask.reshape(shape).to(device),
        pattern=pattern,
        method=method,
        objective=answer.objective,
        bound=answer.bound,
        seconds=time.perf_counter() - start,
        rounds=answer.rounds,
        repaired_tiles=answer.repaired_tiles,
        duals=_shaped_duals(answer.duals, shape),
    )


def _is_trusted(pattern: Pattern, scores: Scores) -> bool:
    """The device's solver, imported only where there are scores for it, has passed its check."""
    from bisparse.masks.gpu.self_check import device_is_trusted

    return isinstance(scores, Tensor) and device_is_trusted(pattern, scores.device)


def _device_solver() -> Callable[..., ExactAnswer | None]:
    """The solver for scores on a GPU, imported, with Triton, only where there are some."""
    from bisparse.masks.triton_exact import solve_on_device

    return solve_on_device


def _check_method(
    method: str, pattern: Pattern, warm_start: MaskResult | Duals | None, return_duals: bool
) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    transposable = isinstance(pattern, TransposableNM)
    if method != "exact" and not transposable:
        raise ValueError(
            f'method {method!r} solves transposable patterns only, not {pattern}; use method="exact"'
        )
    if (return_duals or warm_start is not None) and not (transposable and method == "exact"):
        raise ValueError(
            f"dual potentials exist for exact transposable masks only, not for {method} masks of {pattern}; "
            "leave out return_duals and warm_start"
        )


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return torch.get_num_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads must be a positive integer or None, got {threads!r}")
    return threads


def _warm_columns(
    warm_start: MaskResult | Duals | None, scores: Tensor, pattern: Pattern, *, check: bool
) -> Tensor | None:
    """The potentials to start from, where the scores are.

    ``check`` refuses those that are not finite. On a GPU they count as 0 instead, so that no answer is waited for.
    """
    if warm_start is None or not isinstance(pattern, TransposableNM):
        return None
    duals = warm_start.duals if isinstance(warm_start, MaskResult) else warm_start
    if duals is None:
        raise ValueError("the warm start has no duals: solve the earlier mask with return_duals=True")
    batch, rows, columns = scores.shape
    expected = (batch, -(-rows // pattern.block), columns)
    found = tuple(duals.columns.shape)
    if math.prod(found) != math.prod(expected) or found[-2:] != expected[-2:]:
        raise ValueError(
            f"the warm start's column potentials have shape {found}, but {pattern} on scores of shape "
            f"{tuple(scores.shape)} needs {expected}: use the result of an earlier solve of the same shape"
        )
    dtype = torch.float32 if scores.dtype.is_floating_point and scores.dtype.itemsize <= 4 else torch.float64
    columns_start = duals.columns.detach().to(scores.device, dtype).reshape(expected).contiguous()
    if not check:
        return columns_start
    if columns_start.numel() and not all(math.isfinite(float(x)) for x in torch.aminmax(columns_start)):
        raise ValueError("the warm start's column potentials are not finite: start cold instead")
    return columns_start


def _solve_with(
    target: tuple[str, str], scores: Tensor, pattern: Pattern, magnitude: bool
) -> ExactAnswer | None:
    """Run a method whose mask carries no proof: its bound is infinite."""
    solver: Callable[[Tensor, Pattern], Tensor] = getattr(import_module(target[0]), target[1])
    values = scores if scores.dtype in (torch.float32, torch.float64) else _widened(scores)
    values = values.abs() if magnitude else values
    if values.numel() and not bool((values.isfinite() & (values >= 0)).all()):
        return None
    mask = solver(values, pattern)
    return ExactAnswer(mask, float(torch.where(mask, values, 0).sum(dtype=torch.float64)), math.inf)


def _widened(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype.is_floating_point else scores.double()


def _shaped_duals(duals: Duals | None, shape: tuple[int, ...]) -> Duals | None:
    if duals is None:
        return None
    lead = shape[:-2]
    return Duals(
        duals.rows.reshape(*lead, *duals.rows.shape[-2:]),
        duals.columns.reshape(*lead, *duals.columns.shape[-2:]),
    )
