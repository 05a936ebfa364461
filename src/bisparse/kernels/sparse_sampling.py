"""Random places in a matrix that is never made: exactly so many, all different, every set equally likely."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sample_absent", "sample_distinct"]


def sample_distinct(count: int, total: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` different integers below ``total``, uniformly among all such sets.

    Args:
        count: how many; at most ``total``.
        total: any up to 2^63 - 1: keys of a matrix never overflow.
        generator: on the CPU; the same state gives the same numbers on every machine.

    Returns:
        (count) int64, sorted.

    Cost: memory and time of a few sorts of ``count`` numbers, whatever ``total`` is.

    Raises:
        ValueError: more are asked for than there are.
    """
    return sample_absent(count, torch.empty(0, dtype=torch.int64, device="cpu"), total, generator)


def sample_absent(count: int, taken: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` different integers below ``total`` that are not ``taken``, uniformly among all such sets.

    Args:
        count: how many.
        taken: (n) int64, sorted and distinct.
        total: see :func:`sample_distinct`.
        generator: on the CPU.

    Returns:
        (count) int64, sorted, on the CPU.

    Raises:
        ValueError: fewer than ``count`` are free.
    """
    taken = taken.cpu()
    free = total - taken.numel()
    if not 0 <= count <= free:
        raise ValueError(f"{count} places are to be drawn, but {free} of {total} are free")
    if 2 * (count + taken.numel()) >= total:  # then counting them all costs no more
        return _of_few(count, taken, total, generator)
    drawn = torch.empty(0, dtype=torch.int64, device="cpu")
    while (missing := count - drawn.numel()) > 0:
        # A draw hits a free place with probability > 1/2; whatever is too many is thrown away at random.
        size = missing + missing // 8 + 16
        more = torch.randint(total, (size,), generator=generator, device="cpu").sort().values
        more = _without(_without(torch.unique_consecutive(more), taken), drawn)
        drawn = torch.cat([drawn, _some(more, min(missing, more.numel()), generator)]).sort().values
    return drawn


def _of_few(count: int, taken: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """The same from the list of all free places."""
    free = torch.ones(total, dtype=torch.bool, device="cpu")
    free[taken] = False
    return _some(free.nonzero().squeeze(1), count, generator)


def _without(keys: Tensor, others: Tensor) -> Tensor:
    """The sorted keys that are not among other sorted keys."""
    if others.numel() == 0:
        return keys
    place = torch.searchsorted(others, keys).clamp_(max=others.numel() - 1)
    return keys[others[place] != keys]


def _some(keys: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A random subset, in the order of the keys."""
    if count == keys.numel():
        return keys
    chosen = torch.randperm(keys.numel(), generator=generator, device="cpu")[:count]
    return keys[chosen.sort().values]
