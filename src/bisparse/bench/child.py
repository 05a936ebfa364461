"""Measurements in a process of their own: what is in memory belongs to nobody else."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

__all__ = ["Measured", "forget_peak", "in_child"]

Result = TypeVar("Result")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Measured(Generic[Result]):
    """What a call gave, and the memory that it took.

    Attributes:
        result: of the call.
        peak_bytes: most memory that the process had (since a ``forget_peak`` of the call, if it made one), the
            interpreter and all libraries included.
        grown_bytes: by how much that exceeds what it had before the call.
    """

    result: Result
    peak_bytes: int
    grown_bytes: int


def in_child(
    call: Callable[..., Result],
    *arguments: object,
    threads: int,
    warm_up: Callable[[], object] | None = None,
) -> Measured[Result]:
    """Call a function in a fresh process (Linux).

    Args:
        call: a function of a module.
        arguments: that can be pickled.
        threads: of PyTorch.
        warm_up: called before memory is looked at: what libraries load at their first call is not counted as grown.

    Raises:
        Exception: whatever the call raises.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "bisparse.nn", "bisparse.recipes"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_watched, call, arguments, threads, warm_up).result()


def _watched(
    call: Callable[..., Result],
    arguments: tuple[object, ...],
    threads: int,
    warm_up: Callable[[], object] | None,
) -> Measured[Result]:
    torch.set_num_threads(threads)
    if warm_up is not None:
        warm_up()
    forget_peak()
    before = _bytes("VmRSS")
    result = call(*arguments)
    peak = _bytes("VmHWM")
    return Measured(result, peak, max(peak - before, 0))


def forget_peak() -> int:
    """Give free memory back to the system and forget how much this process had; returns that."""
    peak = _bytes("VmHWM")
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak


def _bytes(name: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
