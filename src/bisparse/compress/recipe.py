"""Which scores, which reconstruction, which last stage; what ``"auto"`` means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bisparse.compress.distill import Distill
from bisparse.compress.reconstruct import (
    RECONSTRUCTIONS,
    AdaPrune,
    Alps,
    LeastSquares,
    NoReconstruction,
    Reconstruction,
)
from bisparse.scores import SCORES, Scores, needs_data

__all__ = ["Recipe", "Reconstruct", "resolve_recipe"]

Reconstruct: TypeAlias = "str | Reconstruction | Sequence[Reconstruction | Distill]"

# Backward passes through larger models need far more memory than anything else here: ask for them by name.
_DISTILL_PARAMETERS = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """A resolved choice.

    Attributes:
        scores: for layer-wise methods that do not choose their own mask.
        layerwise: the layer-wise method.
        distill: the last stage, or ``None``.
        damping: of the Hessians, for methods that do not set their own.
    """

    scores: Scores
    layerwise: Reconstruction
    distill: Distill | None = None
    damping: float = 1e-4

    def describe(self) -> dict[str, Any]:
        """The settings as plain values."""
        given = "chosen by the reconstruction" if self.layerwise.chooses_mask else "given by the user"
        by_name = isinstance(self.scores, str) and not self.layerwise.chooses_mask
        return {
            "scores": self.scores if by_name else given,
            "reconstruct": repr(self.layerwise),
            "distill": repr(self.distill),
            "damping": self.damping,
        }


def _parts(reconstruct: Reconstruct) -> tuple[Reconstruction, Distill | None]:
    """Layer-wise method and last stage from text such as ``"alps+distill"``, an option object, or a
    sequence.
    """
    if isinstance(reconstruct, str):
        items: list[Any] = []
        for name in reconstruct.split("+"):
            if name not in RECONSTRUCTIONS and name != "distill":
                known = ", ".join([*RECONSTRUCTIONS, "distill"])
                raise ValueError(f"unknown reconstruction {name!r}: use one of {known}, or two joined by '+'")
            items.append(Distill() if name == "distill" else RECONSTRUCTIONS[name]())
    else:
        items = list(reconstruct) if isinstance(reconstruct, Sequence) else [reconstruct]
    layerwise: list[Reconstruction] = [item for item in items if not isinstance(item, Distill)]
    last = [item for item in items if isinstance(item, Distill)]
    if len(layerwise) > 1 or len(last) > 1:
        raise ValueError(f"one layer-wise method and one last stage at most, got {items!r}")
    return layerwise[0] if layerwise else NoReconstruction(), last[0] if last else None


def resolve_recipe(
    scores: Scores, reconstruct: Reconstruct, *, has_data: bool, parameters: int, damping: float
) -> Recipe:
    """Turn the user's choice into a recipe.

    ``"auto"`` without calibration data is magnitude without reconstruction. With data it is the best measured
    recipe: ALPS (least squares where scores are given), then distillation for models of at most 50 million
    parameters.

    Raises:
        ValueError: unknown names, data needed but absent, scores given to a method that chooses its own mask,
            or a negative damping.
    """
    if not 0.0 <= damping < math.inf:
        raise ValueError(f"damping={damping}: a share of the Hessian's diagonal, must be 0 or more")
    auto_scores = isinstance(scores, str) and scores == "auto"
    if reconstruct == "auto":
        layerwise: Reconstruction = NoReconstruction()
        distill: Distill | None = None
        if has_data:
            layerwise = Alps() if auto_scores else LeastSquares()
            distill = Distill() if parameters <= _DISTILL_PARAMETERS else None
    else:
        layerwise, distill = _parts(reconstruct)
    if layerwise.chooses_mask and not auto_scores:
        raise ValueError(f"{type(layerwise).__name__} chooses its own mask: leave out scores=")
    if auto_scores:
        refits = isinstance(layerwise, (LeastSquares, AdaPrune))
        scores = ("obs" if refits else "wanda") if has_data else "magnitude"
    if isinstance(scores, str) and scores not in SCORES:
        raise ValueError(
            f"unknown scores {scores!r}: use one of {', '.join(SCORES)}, a mapping or a callable"
        )
    if not has_data and (layerwise.needs_data or distill or needs_data(scores)):
        what = layerwise if layerwise.needs_data else distill or scores
        raise ValueError(f"{what!r} needs calibration data: pass calibration=")
    return Recipe(scores, layerwise, distill, damping)
