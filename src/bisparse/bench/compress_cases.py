"""Which model, pattern, scores and reconstruction are compared: rows of the compression benchmark, in order
of need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

__all__ = ["KEY", "PATTERNS", "RESNETS", "Case", "cases"]

PATTERNS = ("4:8t", "2:4t", "2:4", "4:8", "8:16t", "2:8t")
SCORES = ("magnitude", "wanda", "obs", "ria")
SCORED = ("none", "bias", "least_squares", "adaprune")
RESNETS = ("resnet20", "resnet32")


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        model: ``resnet20``, ``resnet32`` or ``llama``.
        pattern: as text; for ``fit_nm``, ``fit:8`` or ``fit:8t``.
        scores: name, or ``auto``.
        reconstruct: name, ``auto`` = the library's default recipe, ``dense`` = the model as it is.
        samples: of calibration data; 0 = all that the model's protocol gives.
        seed: of the recipe, and of the choice of samples where it is not 0.
        sparsity: of global magnitude pruning before ``fit_nm``; 0 elsewhere.
    """

    model: str
    pattern: str
    scores: str = "auto"
    reconstruct: str = "auto"
    samples: int = 0
    seed: int = 0
    sparsity: float = 0.0

    def row(self) -> dict[str, str | int | float | bool | None]:
        """The case as key columns."""
        return asdict(self)


KEY = tuple(Case.__dataclass_fields__)


def cases() -> Iterator[Case]:
    """All of them."""
    for model in ("resnet20", "resnet32", "llama"):
        yield Case(model, "dense", reconstruct="dense")
    for reconstruct in ("auto", "alps"):
        for pattern in PATTERNS[:2]:
            yield from (Case(model, pattern, reconstruct=reconstruct) for model in RESNETS)
    for pattern in PATTERNS:
        yield from _methods("llama", pattern, full=True)
    for pattern in PATTERNS:
        yield from _methods("resnet20", pattern, full=pattern in PATTERNS[:2])
    yield from _unstructured("llama")
    yield from _unstructured("resnet20")
    yield from _samples_and_seeds()
    for pattern in PATTERNS:
        yield from _methods("resnet32", pattern, full=False)


def _methods(model: str, pattern: str, *, full: bool) -> Iterator[Case]:
    yield Case(model, pattern)
    yield from (Case(model, pattern, reconstruct=name) for name in ("alps", "sparsegpt"))
    scored = [(s, r) for r in SCORED for s in SCORES] if full else []
    scored = scored or [("magnitude", "none"), ("magnitude", "least_squares"), ("obs", "least_squares")]
    yield from (Case(model, pattern, scores, reconstruct) for scores, reconstruct in scored)


def _unstructured(model: str) -> Iterator[Case]:
    for sparsity in (0.5, 0.6, 0.7, 0.8, 0.9):
        for pattern in ("unstructured", "fit:8", "fit:8t"):
            yield Case(model, pattern, reconstruct="none", sparsity=sparsity)
        yield from (Case(model, pattern, sparsity=sparsity) for pattern in ("fit:8", "fit:8t"))


def _samples_and_seeds() -> Iterator[Case]:
    for samples in (64, 256, 1024, 2048):
        for reconstruct in ("alps", "auto"):
            yield Case("resnet20", "4:8t", reconstruct=reconstruct, samples=samples)
    for seed in (1, 2):
        for pattern in PATTERNS[:2]:
            yield from (Case(model, pattern, seed=seed) for model in RESNETS)
    yield from (Case("llama", "4:8t", samples=samples) for samples in (8, 16, 32, 64))
