"""Visits of one module by two networks: whether their samples correspond, and a few images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bisparse.compress.inputs import Features
from bisparse.compress.streams import Visit

__all__ = ["pieces", "same_routes"]

_POSITIONS = 4096  # of images whose windows are held at a time: they then stay in the cache

_Piece: TypeAlias = tuple[tuple[Any, ...], Mapping[str, Features]]


def pieces(visit: Visit, targets: Mapping[str, Features]) -> Iterator[_Piece]:
    """Arguments of a visit with their targets: a few images at a time at 2-D convolutions, else all together.

    The windows of a whole batch of images would take prod(kernel) times its memory.

    Args:
        visit: where a stream waits.
        targets: rows of targets per group, by weight name, in the order of the samples; may be empty.
    """
    images = visit.args[0] if visit.args else None
    if not isinstance(visit.module, nn.Conv2d) or not isinstance(images, Tensor) or not _fit(images, targets):
        yield visit.args, targets
        return
    step = max(1, _POSITIONS // (images.shape[2] * images.shape[3]))
    for first in range(0, len(images), step):
        last = min(first + step, len(images))
        yield (
            (images[first:last],),
            {name: [_rows(y, images, first, last) for y in group] for name, group in targets.items()},
        )


def same_routes(one: Visit, other: Visit | None) -> bool:
    """Whether two calls agree in all arguments of whole numbers, which say where experts find their tokens.

    Where they do not, the samples that an expert receives in one network are not those of the other.
    """
    if other is None:
        return False
    found, expected = (
        [
            v
            for v in (*visit.args, *visit.kwargs.values())
            if isinstance(v, Tensor) and not v.is_floating_point()
        ]
        for visit in (one, other)
    )
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def _fit(images: Tensor, targets: Mapping[str, Features]) -> bool:
    """Whether every image has equally many rows of targets."""
    if images.dim() != 4 or not images.numel():
        return False
    return all(len(y) % len(images) == 0 for group in targets.values() for y in group)


def _rows(targets: Tensor, images: Tensor, first: int, last: int) -> Tensor:
    rows = len(targets) // len(images)
    return targets[rows * first : rows * last]
