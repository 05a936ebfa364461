"""Whether the weights of a trained model obey their patterns: checked with code that no solver shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bisparse.masks.verify import verify_mask
from bisparse.train.masked_weight import MaskedWeight
from bisparse.weights import as_matrices

__all__ = ["MaskCheck", "check_masks"]


@dataclass(frozen=True, slots=True)
class MaskCheck:
    """One weight.

    Attributes:
        name: of the parameter.
        shape: of the whole weight.
        pattern: that its mask has to obey.
        density: share of entries that the mask keeps.
        holds: the mask obeys the pattern, and every dropped entry is zero.
    """

    name: str
    shape: tuple[int, ...]
    pattern: str
    density: float
    holds: bool


def check_masks(weights: Mapping[str, MaskedWeight], *, at_most: bool = False) -> tuple[MaskCheck, ...]:
    """Check all weights of a sparsifier while it is attached (weights divided among processes: the own part).

    Args:
        weights: by name.
        at_most: patterns are upper limits.
    """
    return tuple(_check(weight, at_most) for weight in weights.values())


def _check(weight: MaskedWeight, at_most: bool) -> MaskCheck:
    zero = not bool(weight.values[~weight.mask].count_nonzero())
    obeys = weight.sharding is not None or bool(
        verify_mask(as_matrices(weight.mask.cpu(), weight.layout), weight.pattern, at_most=at_most).feasible
    )
    density = weight.mask.sum().item() / max(weight.mask.numel(), 1)
    pattern = f"at most {weight.pattern}" if at_most else str(weight.pattern)
    return MaskCheck(weight.name, weight.shape, pattern, density, zero and obeys)
