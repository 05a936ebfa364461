"""Calibration samples, taken from batches of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from bisparse.compress.calibration import Call

__all__ = ["call_size", "few", "first_samples", "split_samples"]


def _batched(call: Call) -> list[Tensor]:
    return [v for v in (*call.args, *call.kwargs.values()) if isinstance(v, Tensor) and v.dim()]


def call_size(call: Call) -> int:
    """Samples in a call: the first dimension of its first tensor."""
    tensors = _batched(call)
    return len(tensors[0]) if tensors else 1


def _piece(call: Call, first: int, last: int) -> Call:
    """Some samples of a call: every tensor with the batch as its first dimension is cut."""
    size = call_size(call)

    def cut(value: Any) -> Any:
        return (
            value[first:last] if isinstance(value, Tensor) and value.dim() and len(value) == size else value
        )

    valid = None if call.valid is None else call.valid[first:last]
    kwargs = {name: cut(value) for name, value in call.kwargs.items()}
    return replace(call, args=tuple(cut(value) for value in call.args), kwargs=kwargs, valid=valid)


def few(calls: Sequence[Call], count: int) -> Call:
    """The first samples of the first call, at most so many."""
    return _piece(calls[0], 0, min(count, call_size(calls[0])))


def _taken(calls: Sequence[Call], first: int, last: int) -> Iterator[Call]:
    """Samples first to last of all calls, batch by batch."""
    begin = 0
    for call in calls:
        size = call_size(call)
        low, high = max(first, begin), min(last, begin + size)
        if low < high:
            yield _piece(call, low - begin, high - begin)
        begin += size


def first_samples(calls: Sequence[Call], count: int) -> list[Call]:
    """The first samples of all calls, batch by batch, at most so many."""
    return list(_taken(calls, 0, count))


def split_samples(calls: Sequence[Call], wanted: int, *, exact: bool) -> tuple[list[Call], list[Call]]:
    """Samples that decide, and as many others that check them (fewer where there are no more).

    Args:
        calls: all of them.
        wanted: samples that decide.
        exact: whether fewer are an error; otherwise half of what there is must do.

    Raises:
        ValueError: there are fewer.
    """
    total = sum(call_size(call) for call in calls)
    if exact and total < wanted:
        raise ValueError(f"samples={wanted}, but calibration holds only {total}: give more, or ask for fewer")
    count = wanted if exact else min(wanted, max(1, total // 2))
    return list(_taken(calls, 0, count)), list(_taken(calls, count, 2 * count))
