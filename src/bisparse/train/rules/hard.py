"""Masked gradient."""

from __future__ import annotations

import torch

from bisparse.train.rules.rule import Rule, Update

__all__ = ["Hard"]


class Hard(Rule):
    """Only kept entries learn: the gradient is multiplied by E.

    Dropped entries keep their value, apart from weight decay and what is left of momentum; a refresh brings
    one back only when a kept entry has become smaller.
    """

    def apply_(self, update: Update) -> None:
        """Gradient * E."""
        gradients = update.gradients
        dropped = torch._foreach_mul(gradients, update.dropped)
        torch._foreach_sub_(gradients, dropped)

    def catch_up_(self, update: Update) -> None:
        """What the optimizer gave to dropped entries is taken back."""
        values = update.values
        torch._foreach_sub_(values, torch._foreach_mul(values, update.dropped))
        super().catch_up_(update)
