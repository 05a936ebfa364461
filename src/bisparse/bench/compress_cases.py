"""Which model, pattern, scores and reconstruction are compared: rows of the compression benchmark, in order
of need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

__all__ = ["KEY", "PATTERNS", "RESNETS", "Case", "cases"]

PATTERNS = ("4:8t", "2:4t", "2:4", "4:8", "8:16t", "2:8t")
SCORES = ("magnitude", "wanda", "obs", "ria")
SCORED = ("least_squares", "none", "bias", "adaprune")
RESNETS = ("resnet20", "resnet32")
_SCORED = tuple((scores, reconstruct) for reconstruct in SCORED for scores in SCORES)


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        model: ``resnet20``, ``resnet32`` or ``llama``.
        pattern: as text; for ``fit_nm``, ``fit:8`` or ``fit:8t``.
        scores: name, or ``auto``.
        reconstruct: name, ``auto`` = the library's default recipe, ``long`` = that with four times the
            least number of distillation's steps and 2.5 times its learning rate, ``dense`` = the model as it is.
        samples: of calibration data; 0 = as many as the model's protocol gives.
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


def cases() -> list[Case]:
    """All of them, each once, in order of need."""
    return list(dict.fromkeys(_wanted()))


def _wanted() -> Iterator[Case]:
    first, rest = PATTERNS[:2], PATTERNS[2:]
    yield from (Case(model, "dense", reconstruct="dense") for model in (*RESNETS, "llama"))
    yield from (Case(model, pattern) for pattern in first for model in (*RESNETS, "llama"))
    yield from (Case(model, pattern, reconstruct="alps") for pattern in first for model in RESNETS)
    yield from _samples_and_seeds()
    for model in ("resnet20", "llama"):
        yield from _methods(model, first)
    for model in ("llama", "resnet20"):
        yield from _unstructured(model)
        yield from _methods(model, rest)
    yield from (Case("resnet32", pattern) for pattern in rest)
    yield from _methods("resnet32", PATTERNS)
    yield from (Case("llama", "4:8t", reconstruct="long", samples=samples) for samples in (0, 512))


def _methods(model: str, patterns: Sequence[str]) -> Iterator[Case]:
    """Every scores x reconstruction, the most telling ones first.

    The networks' convolutions have no bias: there ``bias`` can do nothing, and is left out.
    """
    scored = [method for method in _SCORED if method[1] != "bias" or model not in RESNETS]
    for method in (("auto", "auto"), ("auto", "alps"), ("auto", "sparsegpt"), *scored):
        yield from (Case(model, pattern, *method) for pattern in patterns)


def _unstructured(model: str) -> Iterator[Case]:
    for sparsity in (0.5, 0.6, 0.7, 0.8, 0.9):
        for pattern in ("unstructured", "fit:8", "fit:8t"):
            yield Case(model, pattern, reconstruct="none", sparsity=sparsity)
        yield from (Case(model, pattern, sparsity=sparsity) for pattern in ("fit:8", "fit:8t"))


def _samples_and_seeds() -> Iterator[Case]:
    for samples in (64, 256, 2048):
        yield from (Case("resnet20", "4:8t", reconstruct=r, samples=samples) for r in ("auto", "alps"))
    for seed in (1, 2):
        yield from (Case(model, pattern, seed=seed) for pattern in PATTERNS[:2] for model in RESNETS)
    yield from (Case("llama", "4:8t", samples=samples) for samples in (512, 32, 8, 2048))
