"""Sparse-refined straight-through estimator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from bisparse.train.rules.rule import Rule, Update, shrink_

__all__ = ["SrSte"]


@dataclass(frozen=True)
class SrSte(Rule):
    """Straight-through gradients, and dropped entries decay: they are less likely to come back.

    W <- W - lr * (gradient at W*E + decay * (1-E) * W). The term is added once, after gradients are reduced
    over processes, unscaled and clipped. (The reference code adds it on every process before a sum, which
    makes it 8 times as strong on the documented 8 processes.)

    Attributes:
        decay: lambda, 2e-4 in the paper. A negative one is allowed: the paper tries it.
        mode: ``"coupled"`` adds the term to the gradient, so that momentum and Adam's normalisation see it.
            ``"decoupled"`` shrinks W itself by lr * decay, as AdamW does with weight decay.

    Raises:
        ValueError: an unknown mode, or a decay that is not finite.

    Source: Zhou et al. 2021 (arXiv 2102.04010).
    """

    decay: float = 2e-4
    mode: Literal["coupled", "decoupled"] = "coupled"

    def __post_init__(self) -> None:
        if self.mode not in ("coupled", "decoupled"):
            raise ValueError(f'mode={self.mode!r}: choose "coupled" (in the gradient) or "decoupled" (in W)')
        if not math.isfinite(self.decay):
            raise ValueError(f"decay={self.decay}: lambda is a finite number, 2e-4 in the paper")

    def apply_(self, update: Update) -> None:
        """Add decay * (1-E)*W to the gradient, or take it from W."""
        if self.mode == "decoupled":
            if update.again:
                return
            if isinstance(update.learning_rate, float):
                torch._foreach_add_(update.values, update.hidden, alpha=-update.learning_rate * self.decay)
            else:
                term = torch._foreach_mul(update.hidden, update.learning_rate * -self.decay)
                torch._foreach_add_(update.values, term)
            return
        decay = -self.decay if update.maximize else self.decay
        if update.scale is None:
            torch._foreach_add_(update.gradients, update.hidden, alpha=decay)
        else:
            torch._foreach_add_(update.gradients, torch._foreach_mul(update.hidden, update.scale * decay))

    def catch_up_(self, update: Update) -> None:
        """Decay what is hidden by lr * (decay + weight decay), then reveal."""
        shrink_(update.hidden, update.learning_rate, self.decay + update.weight_decay)
        self.reveal_(update.weights)
