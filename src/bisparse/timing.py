"""Times that can be compared: contenders run in turn in one process, and medians are taken."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

__all__ = ["interleave", "torch_threads"]

SHORTEST_SAMPLE = 2e-3
FEWEST_REPEATS = 3


def interleave(
    calls: Mapping[str, Callable[[], object]], *, repeats: int = 7, seconds: float = 30.0
) -> dict[str, list[float]]:
    """Time every call in turn, again and again, so that a slow moment of the machine meets all of them.

    Every call runs once to warm up; calls shorter than 2 ms are timed in batches; no garbage is collected.

    Args:
        calls: what to time, by name.
        repeats: samples per call.
        seconds: once this much time has passed, no new round of samples is begun, but three always are.

    Returns:
        For every name the seconds per call, one number per sample; take the median.

    Raises:
        ValueError: ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats}: at least one sample is needed")
    batches = {name: _batch(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    begin = perf_counter()
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        for repeat in range(repeats):
            if repeat >= FEWEST_REPEATS and perf_counter() - begin > seconds:
                break
            for name, call in calls.items():
                samples[name].append(_sample(call, batches[name]))
    finally:
        if was_collecting:
            gc.enable()
    return samples


def _batch(call: Callable[[], object]) -> int:
    """Calls per sample: warms the call up, then estimates how many fill the shortest sample."""
    call()
    return max(1, math.ceil(SHORTEST_SAMPLE / max(_sample(call, 1), 1e-7)))


def _sample(call: Callable[[], object], batch: int) -> float:
    """Seconds per call over a batch of calls."""
    begin = perf_counter()
    for _ in range(batch):
        call()
    return (perf_counter() - begin) / batch


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch's number of threads, restored afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
