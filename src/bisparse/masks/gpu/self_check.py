"""The device solver earns its trust: before its first use for a pattern on a device it is compared with the CPU's."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor

from bisparse.masks.exact import ExactAnswer, solve_exact
from bisparse.masks.verify import verify_mask
from bisparse.pattern import NM, Pattern, TransposableNM

__all__ = ["agrees_with_cpu", "device_is_trusted"]

_log = logging.getLogger(__name__)
_TOLERANCE = 1e-6


@lru_cache(maxsize=256)
def device_is_trusted(pattern: Pattern, device: torch.device) -> bool:
    """Whether the device solver agrees with the CPU on small samples of this pattern; asked once per device.

    If it fails or differs, this is logged once, and the CPU solves instead. Costs the compilation, which the first use
    would cost anyway, and a few milliseconds.
    """
    from bisparse.masks.triton_exact import solve_on_device

    try:
        if agrees_with_cpu(solve_on_device, pattern, device):
            return True
        reason = "its masks differ from the CPU's"
    except Exception as error:  # whatever a compiler, a driver or a launch may raise
        reason = f"{type(error).__name__}: {error}"
    _log.warning(
        "exact %s masks are solved on the CPU, since the solver on %s failed its check (%s)",
        pattern,
        device,
        reason,
    )
    return False


def agrees_with_cpu(
    solve: Callable[[Tensor, Pattern], ExactAnswer | None], pattern: Pattern, device: torch.device
) -> bool:
    """Whether a solver finds feasible masks of the CPU's objective: unique optima, ties, zeros, cut tiles."""
    for scores in _samples(pattern):
        found, expected = solve(scores.to(device), pattern), solve_exact(scores, pattern, threads=1)
        if found is None or expected is None:
            return False
        mask = found.mask.cpu()
        kept = float(scores.double()[mask].sum())
        close = (
            math.isclose(value, expected.objective, rel_tol=_TOLERANCE) for value in (kept, found.objective)
        )
        if not (all(close) and all(verify_mask(one, pattern).feasible for one in mask)):
            return False
    return True


def _samples(pattern: Pattern) -> Iterator[Tensor]:
    """(1, rows, columns) scores, the same at every call."""
    block = pattern.block if isinstance(pattern, (NM, TransposableNM)) else 8
    shape = (1, 4 * block + block // 2, 16 * block + 1)
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(shape, generator=generator).abs()
    yield normal
    yield normal * (torch.rand(shape, generator=generator) < 0.2)
    yield (4 * normal).round()
