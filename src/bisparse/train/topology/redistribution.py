"""Which layer the dropped weights go to: one function each, and one line in the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bisparse.train.topology.view import View

__all__ = ["REDISTRIBUTIONS", "Redistribution", "shared_out"]


@dataclass(frozen=True, slots=True)
class Redistribution:
    """Dropped weights of all layers are shared out anew, in proportion to what a layer's survivors deserve.

    Attributes:
        name: for messages.
        merit: (view, surviving) -> a number for each layer, not negative.
        needs: signals that have to be collected.

    Source: Dettmers and Zettlemoyer 2019 (arXiv 1907.04840).
    """

    name: str
    merit: Callable[[View, Tensor], float]
    needs: frozenset[str] = frozenset()

    def quotas(self, views: Sequence[View], surviving: Sequence[Tensor], total: int) -> list[int]:
        """How many weights each layer grows: ``total`` in all, none more than it has room for."""
        merits = [self.merit(view, mask) for view, mask in zip(views, surviving, strict=True)]
        room = [mask.numel() - int(mask.sum().item()) for mask in surviving]
        return shared_out(total, merits, room)


def shared_out(total: int, merits: Sequence[float], room: Sequence[int]) -> list[int]:
    """Divide a whole number in proportion, exactly; what a full one cannot take is passed on to the others.

    Args:
        total: to divide, at most the sum of ``room``.
        merits: proportions, not negative; where all that have room are 0, they count alike.
        room: the most that each can take.

    Returns:
        Whole numbers whose sum is ``total``. Remainders go to the largest fractions, ties to the first.

    Raises:
        ValueError: there is not room enough.
    """
    if total > sum(room):
        raise ValueError(f"{total} weights have no place: the layers have room for {sum(room)}")
    weights, space = np.asarray(merits, float), np.asarray(room)
    shares = np.zeros(len(space))
    left, open_ = float(total), space > 0
    while left > 0.0 and open_.any():
        part = np.where(open_, weights, 0.0)
        part = part if part.sum() > 0.0 else open_.astype(float)
        proposed = shares + left * part / part.sum()
        full = open_ & (proposed >= space)
        if not full.any():
            shares = proposed
            break
        left -= float((space - shares)[full].sum())
        shares[full] = space[full]
        open_ &= ~full
    whole = np.floor(shares + 1e-9).astype(int)
    order = np.argsort(-np.where(whole < space, shares - whole, -1.0), kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return [int(number) for number in whole]


def _mean_momentum(view: View, surviving: Tensor) -> float:
    assert view.momentum is not None
    return _mean(view.momentum.abs(), surviving)


def _mean_magnitude(view: View, surviving: Tensor) -> float:
    return _mean(view.values.abs(), surviving)


def _survivors(_view: View, surviving: Tensor) -> float:
    return float(surviving.sum().item())


def _mean(tensor: Tensor, mask: Tensor) -> float:
    count = mask.sum().item()
    return float((tensor * mask).double().sum().item()) / count if count else 0.0


REDISTRIBUTIONS: dict[str, Redistribution] = {
    "momentum": Redistribution("momentum", _mean_momentum, frozenset({"momentum"})),
    "magnitude": Redistribution("magnitude", _mean_magnitude),
    "nonzeros": Redistribution("nonzeros", _survivors),
}
