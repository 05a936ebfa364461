"""Rows of the filter benchmark, in order of need."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["KEEPS", "KEY", "METHODS", "MODELS", "Case", "cases"]

MODELS = (
    "resnet20",
    "lenet5-mnist",
    "lenet300-mnist",
    "lenet5-fashion",
    "lenet300-fashion",
    "resnet32",
)
METHODS = (
    ("obs", "least_squares", ""),
    ("pfp", "rescale", ""),
    ("l1", "none", ""),
    ("l1", "none", "global"),
    ("l1", "least_squares", "global"),
    ("pfp", "least_squares", ""),
    ("l1", "least_squares", ""),
    ("pfp", "none", ""),
    ("l2", "none", ""),
    ("taylor", "none", ""),
    ("random", "none", ""),
)
"""Scores, reconstruction, allocation (empty: the scores' own)."""
_FIRST = 3  # of the methods
KEEPS = {"resnet": (0.6, 0.8, 0.5, 0.9, 0.7), "lenet": (0.5, 0.25, 0.15, 0.1, 0.05)}
"""Shares of the parameters, the most telling first."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        model: one of ``MODELS``.
        scores: ``pfp``, ``l1``, ...; ``dense`` = the model as it is.
        reconstruct: how the rest makes up for what is missing.
        keep: share of the parameters that may remain.
        rounds: of pruning and retraining; 0 = no retraining.
        epochs: of retraining in every round.
        seed: of random choices and of the order of the training data.
        allocation: how widths are found; empty = what belongs to the scores.
        distilled: retraining learns from the network as it was, on images mixed in pairs.
        rate: first learning rate of retraining.
        hidden: weight of what the layers receive, where it is distilled.
        images: that retraining has; 0 = all.
    """

    model: str
    scores: str
    reconstruct: str = "none"
    keep: float = 1.0
    rounds: int = 0
    epochs: int = 0
    seed: int = 0
    allocation: str = ""
    distilled: bool = False
    rate: float = 0.0
    hidden: float = 0.0
    images: int = 0

    @property
    def kind(self) -> str:
        """``resnet`` or ``lenet``."""
        return "resnet" if self.model.startswith("resnet") else "lenet"

    def row(self) -> dict[str, str | int | float | bool | None]:
        """The case as key columns."""
        return asdict(self)


KEY = tuple(Case.__dataclass_fields__)

_RETRAINED = (
    Case("resnet20", "pfp", "least_squares", 0.597, 1, 120, distilled=True, rate=0.05),
    Case("resnet20", "pfp", "least_squares", 0.597, 1, 8, distilled=True, rate=0.01),
    Case("resnet20", "l1", "none", 0.597, 1, 8, distilled=True, rate=0.01),
    Case("resnet20", "obs", "least_squares", 0.575, 1, 8, distilled=True, rate=0.01),
    Case("resnet20", "dense", rounds=1, epochs=8, distilled=True, rate=0.01),
    Case("resnet20", "obs", "least_squares", 0.575, 1, 30, distilled=True, rate=0.02),
    Case("resnet20", "pfp", "least_squares", 0.597, 1, 8, rate=0.01),
    Case("resnet20", "obs", "least_squares", 0.575, 1, 8, distilled=True, rate=0.01, hidden=100.0),
    Case("resnet20", "obs", "least_squares", 0.575, 1, 30, distilled=True, rate=0.02, hidden=100.0),
    Case("resnet20", "obs", "least_squares", 0.575, 1, 30, distilled=True, rate=0.01, images=1024),
    Case(
        "resnet20", "obs", "least_squares", 0.575, 1, 30, distilled=True, rate=0.01, images=1024, hidden=100.0
    ),
    Case("lenet300-mnist", "obs", "least_squares", 0.08, 1, 5, rate=0.02),
    Case("lenet300-mnist", "l1", "none", 0.08, 1, 5, rate=0.02),
)
"""The least that answers the printed point (40.3% of the parameters and 30.1% of the multiply-adds of ResNet-20).
Elimination takes more of late layers, which hold parameters but few multiply-adds, so it needs 0.575 to remove as many
of both. Rates of eight epochs: 0.01, the best of 0.01, 0.02 and 0.04 by the divergence from the whole network on 1000
images held out, after three epochs; those of 30 and 120 were not chosen by results.
"""


def cases(*, retrained: bool) -> list[Case]:
    """All of them, each once, in order of need: the first methods at every share of all networks, then the others.

    Args:
        retrained: those with retraining, which take half an hour or more, instead of those without.
    """
    if retrained:
        return list(_RETRAINED)
    found = [Case(model, "dense") for model in MODELS]
    for methods in (METHODS[:_FIRST], METHODS[_FIRST:]):
        for model in MODELS:
            keeps = KEEPS[Case(model, "dense").kind]
            found += [
                Case(model, scores, fit, keep, allocation=allocation)
                for keep in keeps
                for scores, fit, allocation in methods
            ]
    return found
