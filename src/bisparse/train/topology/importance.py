"""Neurons of little importance lose their edges: the network shrinks while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.pattern import part_of
from bisparse.train.measures.neurons import edges_of_inputs, edges_of_outputs, neurons
from bisparse.train.topology.view import View

__all__ = ["Importance"]


@dataclass(frozen=True, slots=True)
class Importance:
    """Cuts the hidden neurons of least strength, the sum of |w| over the edges into them.

    Of the n neurons of a weight that have edges, the ``floor(share * n)`` weakest lose all edges that lead into them.
    The number of kept weights shrinks by what is cut, for good: growth fills up to the new number only. (It may
    grow edges into a cut neuron again, as in the authors' code. They take a percentile over all neurons; from
    the second cut on it counts those without edges too, and does less and less.)

    Attributes:
        start: refreshes before the first cut, the one of ``prepare`` not counted; 200 in the authors' sequential code
            with a refresh after each epoch.
        every: refreshes between two cuts; ``None`` = one cut only.
        share: of the neurons.
        outgoing: also cut the edges that lead out of these neurons, in the next weight; the authors leave them.
        outputs: names of weights whose outputs are no hidden neurons; ``None`` = the last of the chosen weights.

    Raises:
        ValueError: a share outside (0, 1), or refreshes that are not positive.

    Source: Curci et al. 2021 (arXiv 2102.01732).
    """

    start: int = 200
    every: int | None = 10
    share: float = 0.2
    outgoing: bool = False
    outputs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share={self.share}: a share of the neurons strictly between 0 and 1")
        if self.start < 1 or (self.every is not None and self.every < 1):
            raise ValueError(f"start={self.start}, every={self.every}: refreshes, 1 or more")

    def due(self, refreshes: int) -> bool:
        """Whether neurons are cut at a refresh.

        Args:
            refreshes: those before it, the one of ``prepare`` included.
        """
        past = refreshes - self.start
        return past == 0 or (self.every is not None and past > 0 and past % self.every == 0)

    def cuts(self, views: Sequence[View]) -> list[Tensor]:
        """What each weight loses: kept entries, booleans in its shape.

        Args:
            views: all weights of the refresh, in the order of the model.

        Raises:
            ValueError: ``outgoing`` where a weight does not follow the one before it.
        """
        last = (views[-1].weight.name,) if self.outputs is None else self.outputs
        cuts = [torch.zeros_like(view.mask) for view in views]
        for index, view in enumerate(views):
            weight = view.weight
            if weight.name in last:
                continue
            weak = self._weakest(view)
            cuts[index] |= edges_of_outputs(weak, weight.layout, weight.shape)
            if self.outgoing and index + 1 < len(views):
                cuts[index + 1] |= _leaving(weak, view, views[index + 1])
        return [cut & view.mask for cut, view in zip(cuts, views, strict=True)]

    def _weakest(self, view: View) -> Tensor:
        """Flags of the weakest outputs; of equal ones the first go."""
        found = neurons(view.values, view.mask, view.weight.layout)
        alive = found.in_degree > 0
        order = torch.where(alive, found.in_strength, torch.inf).argsort(stable=True)
        weak = torch.zeros_like(alive)
        weak[order[: part_of(int(alive.sum().item()), self.share)]] = True
        return weak


def _leaving(weak: Tensor, view: View, following: View) -> Tensor:
    weight = following.weight
    inputs = len(neurons(following.values, following.mask, weight.layout).out_degree)
    if inputs != len(weak):
        raise ValueError(
            f"{view.weight.name} has {len(weak)} outputs but {weight.name}, the next weight, {inputs} inputs: "
            "outgoing=True needs layers in a row; leave it out"
        )
    return edges_of_inputs(weak, weight.layout, weight.shape)
