"""Which masks on which data are judged and trained: rows of the kernel benchmark, in order of need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

__all__ = ["CHOICES", "DATA", "KEY", "PAIRS", "PAIR_KEY", "PATTERNS", "REGIMES", "MaskedCase", "masked_cases"]

DATA = ("digits", "mnist", "cifar")
REGIMES = ("trained", "initial")
PATTERNS = ("unstructured:0.5", "4:8", "2:4", "4:8t", "2:4t", "filters")
CHOICES = ("magnitude", "saliency", "random")
SEEDS = (0, 1, 2)
PAIRS = ((0, 1), (3, 8), (4, 9), (5, 3))
PAIR_KEY = ("pair", "step")


@dataclass(frozen=True, slots=True)
class MaskedCase:
    """One mask set: judged before training, then trained.

    Attributes:
        data: ``digits``, ``mnist`` (a subset, 12 x 12 pixels) or ``cifar`` (features of a pretrained ResNet-20).
        regime: the masks are put on a ``trained`` network, or on its ``initial`` weights.
        pattern: half of the hidden weights each; ``filters`` = half of the rows of each weight.
        choice: the scores: ``magnitude``, ``saliency`` (|w J|²) or ``random``.
        seed: of weights, data order, random scores.
    """

    data: str
    regime: str
    pattern: str
    choice: str
    seed: int

    def row(self) -> dict[str, str | int | float | bool | None]:
        """The case as key columns."""
        return asdict(self)


KEY = tuple(MaskedCase.__dataclass_fields__)


def masked_cases() -> Iterator[MaskedCase]:
    """All of them; seed by seed, so that an interrupted run is balanced."""
    for seed in SEEDS:
        for data in DATA:
            for regime in REGIMES:
                for pattern in PATTERNS:
                    yield from (MaskedCase(data, regime, pattern, choice, seed) for choice in CHOICES)
