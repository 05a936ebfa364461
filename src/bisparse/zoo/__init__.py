"""Small models, data readers and a plain training loop, shared by demo, recipes and benchmarks."""

from __future__ import annotations

from bisparse.zoo.digits import digits
from bisparse.zoo.fit import accuracy, fit
from bisparse.zoo.mlp import mlp
from bisparse.zoo.split import Split

__all__ = ["Split", "accuracy", "digits", "fit", "mlp"]
