"""Dynamic sparse training: thresholds learn along with the weights that they cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bisparse.pattern import part_of
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.rules.rule import Rule, Update
from bisparse.train.thresholds.estimator import LongTail
from bisparse.train.thresholds.granularity import Granularity, resolve_granularity
from bisparse.train.thresholds.joining import join_
from bisparse.train.thresholds.reset import Reset
from bisparse.train.thresholds.target import Target

if TYPE_CHECKING:
    from bisparse.train.topology.topology import Topology

__all__ = ["Dst"]

_KEY = "threshold"


@dataclass(frozen=True)
class Dst(Rule):
    """Dynamic sparse training: an entry is kept while |W| exceeds a threshold t, which is trained too.

    With Q = |W| - t, M = [Q > 0] and the gradient G of the loss at W*M, the optimizer sees

    - dL/dW = G * (M + |W| H(Q)): dropped entries learn as well, as long as they are within ``estimator.cut`` of
      their threshold; an entry that is exactly 0 learns nothing;
    - dL/dt = -sum(G W H(Q)) - alpha exp(-t), the sum going over the entries that share t.

    The second term is the gradient of ``alpha * sum(exp(-t))``, which is what makes the network sparse. It is a sum
    over thresholds: alpha means the same for layers of all sizes, but not for all granularities (a scalar stands for
    a whole layer, a matrix has one term per weight: multiply alpha by about the number of outputs, or divide it by
    the number of inputs). With SGD and momentum m, thresholds rise by at most ``lr * alpha / (1 - m)`` at a step.

    The mask follows W and t after every step; measures are taken when the schedule says. ``"unstructured:0"``
    leaves the density to the thresholds. Any other pattern is an upper limit: ``"4:8t"`` keeps, of what exceeds its
    threshold, at most 4 in each row and column of a tile (scores max(Q, 0), solved exactly, after every step).
    Once the schedule freezes masks, thresholds stop, and only kept entries learn.

    Thresholds are parameters in groups of their own, which ``attach`` adds to the optimizer: make learning-rate
    schedulers after it, and load the optimizer's state after it. They follow the weights' learning rate and have no
    weight decay.

    Attributes:
        alpha: strength of the penalty.
        granularity: ``vector`` (one threshold for each output feature, filter or gate unit), ``scalar``, ``matrix``,
            ``tile:8``, or a :class:`bisparse.train.thresholds.Granularity`.
        target: adapt alpha until this share of the weights is left; where the schedule freezes masks, what is still
            too much goes at that step.
        reset: what happens where almost nothing of a weight is left.
        estimator: H.
        strict: an entry that equals its threshold is dropped; weights that are 0 are then always dropped at t = 0.
        start: value of new thresholds.
        faithful: thresholds have the weights' weight decay, as in the reference code. Without a loss they then
            stop where ``decay * t = alpha * exp(-t)``, at ``t = LambertW(alpha / decay)``: the density depends on
            that quotient.

    Raises:
        ValueError: a negative alpha, an unknown granularity.

    Cost: about ten passes over each weight at every step.

    Source: Liu et al. 2020 (arXiv 2005.06870); ``target``, patterns and modes of ``reset`` are this library's.
    """

    alpha: float = 5e-4
    granularity: str | Granularity = "vector"
    target: Target | None = None
    reset: Reset = field(default_factory=Reset)
    estimator: LongTail = field(default_factory=LongTail)
    strict: bool = True
    start: float = 0.0
    faithful: bool = False

    def __post_init__(self) -> None:
        if not self.alpha >= 0.0:
            raise ValueError(f"alpha={self.alpha}: the strength of a penalty is 0 or more")
        object.__setattr__(self, "granularity", resolve_granularity(self.granularity))

    def topology(self, chosen: Topology) -> Topology:
        """Masks are those of the thresholds, projected as asked where a pattern limits them.

        Raises:
            ValueError: another topology, or one that looks at the past.
        """
        from bisparse.train.topology.projection import Projection
        from bisparse.train.topology.thresholded import Thresholded

        if type(chosen) is not Projection or chosen.hysteresis or chosen.average is not None:
            raise ValueError(
                f'rule "dst" chooses masks by its thresholds, which {chosen!r} does not know: leave topology, '
                "hysteresis and average out"
            )
        return Thresholded(method=chosen.method, warm=chosen.warm, thresholds=self)

    def begin_(self, weight: MaskedWeight) -> None:
        """Give the weight its thresholds.

        Raises:
            ValueError: the weight is divided among processes.
        """
        _refuse_divided(weight)
        values = weight.values
        shape = self._granularity.shape(weight.shape, weight.layout)
        kind = torch.promote_types(values.dtype, torch.float32)
        weight.learned[_KEY] = nn.Parameter(torch.full(shape, self.start, dtype=kind, device=values.device))
        weight.extra["resets"] = torch.zeros((), dtype=torch.int64)
        weight.extra["reset_at"] = torch.zeros((), dtype=torch.int64)
        weight.extra["alpha"] = torch.tensor(self.alpha, dtype=torch.float64)

    def join(self, optimizer: Any, groups: Mapping[int, Sequence[MaskedWeight]], *, explicit: bool) -> None:
        """Add the thresholds to the optimizer, group by group.

        Raises:
            ValueError: an optimizer that cannot train them.
        """
        if explicit:
            raise ValueError(
                'rule "dst" changes gradients right before the step, and step() comes after it: use an optimizer '
                "with step hooks"
            )
        for index, weights in groups.items():
            for weight in weights:
                _refuse_divided(weight)
            named = {f"{weight.name}.{_KEY}": weight.learned[_KEY] for weight in weights}
            join_(optimizer, index, named, decay=self.faithful)

    def saliency(self, weight: MaskedWeight) -> Tensor:
        """Q = |W| - t, shaped like the weight; its parameter holds W."""
        thresholds = weight.learned[_KEY].detach()
        return weight.values.abs() - self._granularity.spread(thresholds, weight.shape, weight.layout)

    def above(self, saliency: Tensor) -> Tensor:
        """Which entries exceed their thresholds."""
        return saliency > 0 if self.strict else saliency >= 0

    def apply_(self, update: Update) -> None:
        """Both gradients; once masks are fixed, the masked gradient of the weights alone."""
        for weight in update.weights:
            gradient = weight.gradient
            assert gradient is not None
            if update.frozen:
                weight.learned[_KEY].grad = None
                gradient.addcmul_(gradient, weight.dropped.to(gradient.dtype), value=-1)
            else:
                self._apply(weight, gradient, update)

    def _apply(self, weight: MaskedWeight, gradient: Tensor, update: Update) -> None:
        values, thresholds = weight.values, weight.learned[_KEY]
        slope = self.estimator(self.saliency(weight)).mul_(values)  # W H(Q)
        force = self._strength(weight) * torch.exp(-thresholds.detach())
        if update.scale is not None:
            force *= update.scale
        force = -force if update.maximize else force
        structure = self._granularity.gather(slope * gradient, weight.layout)
        thresholds.grad = -structure.to(thresholds.dtype) - force
        change = slope.abs_().sub_(weight.dropped.to(slope.dtype))  # |W| H - (1 - M)
        gradient.addcmul_(gradient, change.to(gradient.dtype))

    def _strength(self, weight: MaskedWeight) -> float:
        """alpha, as it is now."""
        return self.alpha if self.target is None else float(weight.extra["alpha"])

    def set_back_(self, weight: MaskedWeight, kept: float) -> bool:
        """Set thresholds back if they leave too little; whether they were."""
        if not self.reset.due(kept, weight.mask.numel()):
            return False
        self.reset.apply_(weight.learned[_KEY].detach(), self.saliency(weight))
        weight.extra["resets"] += 1
        weight.extra["reset_at"].fill_(weight.steps)
        return True

    def adapt_(self, weights: Sequence[MaskedWeight], density: float) -> None:
        """Adapt alpha to the share that is left of some weights together."""
        if self.target is None:
            return
        alpha = self.alpha * self.target.factor(density, weights[0].steps)
        for weight in weights:
            weight.extra["alpha"].fill_(alpha)

    def cut_(self, weights: Sequence[MaskedWeight]) -> None:
        """Raise all thresholds alike until no more than the wanted share is left."""
        if self.target is None:
            return
        device = weights[0].mask.device
        distances = torch.cat([self.saliency(weight).flatten().to(device) for weight in weights])
        wanted = max(part_of(distances.numel(), self.target.density), 1)
        largest = torch.topk(distances, min(wanted + 1, distances.numel())).values
        rise = largest[-2:].mean().clamp(min=0.0)
        for weight in weights:
            thresholds = weight.learned[_KEY].detach()
            thresholds.add_(rise.to(thresholds))

    def measure(self, weights: Sequence[MaskedWeight]) -> dict[str, float]:
        """``alpha`` (mean), ``resets`` (sum) and ``threshold`` (mean over all)."""
        thresholds = torch.cat([weight.learned[_KEY].detach().flatten() for weight in weights])
        alphas = [self._strength(weight) for weight in weights]
        return {
            "alpha": sum(alphas) / len(alphas),
            "resets": float(sum(int(weight.extra["resets"]) for weight in weights)),
            "threshold": float(thresholds.double().mean()) if len(thresholds) else 0.0,
        }

    @property
    def _granularity(self) -> Granularity:
        return resolve_granularity(self.granularity)


def _refuse_divided(weight: MaskedWeight) -> None:
    if weight.sharding is not None:
        raise ValueError(
            f'{weight.name}: rule "dst" needs each weight whole, as a threshold belongs to entries on several '
            "processes; train with DistributedDataParallel, or with another rule"
        )
