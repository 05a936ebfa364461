"""Where new weights are put: one small file each, and one line in the table."""

from __future__ import annotations

from bisparse.train.topology.grow.gradient import Gradient, Momentum
from bisparse.train.topology.grow.grow import Grow
from bisparse.train.topology.grow.random import Random, RandomUnfired

__all__ = ["GROWS", "Gradient", "Grow", "Momentum", "Random", "RandomUnfired"]

GROWS: dict[str, Grow] = {
    "random": Random(),
    "random-unfired": RandomUnfired(),
    "gradient": Gradient(),
    "momentum": Momentum(),
}
