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
    ("obs", "least_squares"),
    ("pfp", "rescale"),
    ("l1", "none"),
    ("pfp", "least_squares"),
    ("l1", "least_squares"),
    ("pfp", "none"),
    ("l2", "none"),
    ("taylor", "none"),
    ("random", "none"),
)
KEEPS = {"resnet": (0.9, 0.8, 0.7, 0.6, 0.5), "lenet": (0.5, 0.25, 0.15, 0.1, 0.05)}
_RETRAINED = {"resnet": (0.597, 0.5, 0.7), "lenet": (0.15, 0.08)}
_EPOCHS = {"resnet": 10, "lenet": 5}


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
    """

    model: str
    scores: str
    reconstruct: str = "none"
    keep: float = 1.0
    rounds: int = 0
    epochs: int = 0
    seed: int = 0

    @property
    def kind(self) -> str:
        """``resnet`` or ``lenet``."""
        return "resnet" if self.model.startswith("resnet") else "lenet"

    def row(self) -> dict[str, str | int | float | bool | None]:
        """The case as key columns."""
        return asdict(self)


KEY = tuple(Case.__dataclass_fields__)


def cases(*, retrained: bool) -> list[Case]:
    """All of them, each once, in order of need.

    Args:
        retrained: those with retraining, which take hours, instead of those without, which take minutes.
    """
    found = []
    for model in MODELS:
        kind = Case(model, "dense").kind
        if not retrained:
            found.append(Case(model, "dense"))
            for scores, reconstruct in METHODS:
                found += [Case(model, scores, reconstruct, keep) for keep in KEEPS[kind]]
            continue
        found += [
            Case(model, scores, reconstruct, keep, rounds, _EPOCHS[kind])
            for keep in _RETRAINED[kind]
            for scores, reconstruct, rounds in (
                ("obs", "least_squares", 1),
                ("pfp", "least_squares", 1),
                ("l1", "none", 1),
            )
        ]
    return found
