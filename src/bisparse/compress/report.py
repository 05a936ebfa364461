"""What a compression did to each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LayerReport", "PruneReport"]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One weight.

    Attributes:
        name: dotted name of the parameter.
        pattern: as text.
        shape: of the weight.
        density: share of entries that the mask keeps.
        kept_magnitude: share of the sum of |W| that the mask keeps.
        error_before: relative output error |Y - Ŷ| / |Y| after masking alone; NaN without calibration data.
        error_after: the same after reconstruction.
        gap: proven optimality gap of the mask for its scores.
        seconds: time of this layer's mask and reconstruction, without gathering statistics.
        note: anything unusual, for example that the pattern leaves the layer wholly dense.
    """

    name: str
    pattern: str
    shape: tuple[int, ...]
    density: float
    kept_magnitude: float
    error_before: float = math.nan
    error_after: float = math.nan
    gap: float = math.nan
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """All layers of one compression, those that were left out with reasons, and the settings.

    Attributes:
        layers: in the order in which they were solved.
        left_out: weight name to reason.
        settings: scores, reconstruction and so on, as text.
        batch_norms: name of each batch norm that was re-estimated and tested -> what became of it.
        seconds: wall time of the whole call.
        notes: results of later stages, for example of distillation.
    """

    layers: tuple[LayerReport, ...]
    left_out: dict[str, str]
    settings: dict[str, Any]
    batch_norms: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Share of the entries of all chosen weights that are kept."""
        return _weighted((layer.density, math.prod(layer.shape)) for layer in self.layers)

    def __getitem__(self, name: str) -> LayerReport:
        """The layer of that weight or module name."""
        for layer in self.layers:
            if name in (layer.name, layer.name.rpartition(".")[0]):
                return layer
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; ``layers`` is a list of records, ready for a data frame."""
        return {
            "settings": self.settings,
            "density": self.density,
            "seconds": self.seconds,
            "layers": [asdict(layer) for layer in self.layers],
            "left_out": self.left_out,
            "batch_norms": self.batch_norms,
            "notes": self.notes,
        }


def _weighted(pairs: Iterable[tuple[float, int]]) -> float:
    pairs = list(pairs)
    return sum(value * size for value, size in pairs) / max(sum(size for _, size in pairs), 1)
