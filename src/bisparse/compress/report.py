"""What a compression did to each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.plots import ACCENT, INK, PALE, save_figure
from bisparse.report import Column, Table, counted, to_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        content: dict[str, Any] = to_plain(
            {
                "settings": self.settings,
                "density": self.density,
                "seconds": self.seconds,
                "layers": [asdict(layer) for layer in self.layers],
                "left_out": self.left_out,
                "batch_norms": self.batch_norms,
                "notes": self.notes,
            }
        )
        return content

    def to_table(self) -> Table:
        """One line per layer, then what was left out and why."""
        measured = any(math.isfinite(layer.error_after) for layer in self.layers)
        columns = [column for column in _COLUMNS if measured or not column.key.startswith("error")]
        kept = _weighted((layer.kept_magnitude, math.prod(layer.shape)) for layer in self.layers)
        notes = [
            f"{counted(len(self.layers), 'weight', 'weights')} at density {self.density:.4f}, "
            f"{kept:.4f} of the magnitude kept, {self.seconds:.1f} s"
        ]
        notes += [f"left out: {name} ({reason})" for name, reason in self.left_out.items()]
        method = self.settings.get("reconstruct", "")
        return Table(f"pruned by {method}", columns, [asdict(layer) for layer in self.layers], notes)

    def plot(self, path: str | Path) -> Path:
        """Write a picture of every layer's output error, after masking alone and after reconstruction.

        Raises:
            ValueError: there are no errors without calibration data.
            ImportError: matplotlib is missing.
        """
        layers = [layer for layer in self.layers if math.isfinite(layer.error_after)]
        if not layers:
            raise ValueError("output errors are known only with calibration data: nothing to draw")
        size = (7.0, 1.2 + 0.22 * len(layers))
        return save_figure(Path(path), size, [lambda axes: _draw_errors(axes, layers)])


_COLUMNS = (
    Column("name", "weight"),
    Column("pattern", "pattern"),
    Column("shape", "shape", "shape", 4),
    Column("density", "density", "share", 2),
    Column("kept_magnitude", "kept |W|", "share", 1),
    Column("error_before", "error masked", "share", 1),
    Column("error_after", "error fitted", "share"),
    Column("gap", "gap", "number", 3),
    Column("seconds", "time", "seconds", 3),
    Column("note", "note", "text", 2),
)


def _draw_errors(axes: Axes, layers: list[LayerReport]) -> None:
    places = range(len(layers))
    axes.barh(places, [layer.error_before for layer in layers], color=ACCENT, height=0.8, label="masked")
    axes.barh(places, [layer.error_after for layer in layers], color=INK, height=0.45, label="reconstructed")
    axes.set_yticks(places, [layer.name for layer in layers], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("relative output error")
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)
    axes.legend()


def _weighted(pairs: Iterable[tuple[float, int]]) -> float:
    pairs = list(pairs)
    return sum(value * size for value, size in pairs) / max(sum(size for _, size in pairs), 1)
