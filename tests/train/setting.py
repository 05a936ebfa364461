"""A small model whose dropped weights get no gradient, and the factor by which they must decay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import bisparse as bs
from bisparse.train import SrSte

RATE, DECAY, WEIGHT_DECAY = 0.5, 0.02, 0.1
FACTOR = 1.0 - RATE * (DECAY + WEIGHT_DECAY)


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)).to(dtype)


def silent_loss(model: nn.Module) -> Tensor:
    """A loss that depends on the weights (their gradients exist) but has gradient zero at every one of them."""
    dtype = next(model.parameters()).dtype
    return (
        sum((p.to(dtype) * 0.0).sum() for p in model.parameters())
        + model(torch.zeros(2, 8, dtype=dtype)).sum() * 0.0
    )


def sparsifier(**options: object) -> bs.Sparsifier:
    settings: dict[str, object] = {"rule": SrSte(decay=DECAY), "update_every": 10**6, "ignore": []} | options
    return bs.Sparsifier("2:4t", **settings)  # type: ignore[arg-type]


def sgd(model: nn.Module, **options: object) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, **options)  # type: ignore[arg-type]


class Dropped:
    """What a sparsifier hides, noted now and compared later."""

    def __init__(self, of: bs.Sparsifier) -> None:
        self.of = of
        self.before = {name: w.hidden.clone() for name, w in of.weights.items()}
        assert all(int((h != 0).sum()) == h.numel() // 2 for h in self.before.values())

    def check(self, steps: int, factor: float = FACTOR, tolerance: float = 1e-12) -> None:
        """Every dropped entry decayed by ``factor`` at every step, and the parameters are masked."""
        for name, weight in self.of.weights.items():
            expected = self.before[name] * factor**steps
            torch.testing.assert_close(weight.hidden, expected, rtol=tolerance, atol=0.0)
            assert not (weight.values * weight.dropped).any()
            assert weight.steps == steps


def same(one: object, other: object) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other
