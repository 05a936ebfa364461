"""What was removed, what it saves, and what is proven about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisparse.filters.plan import FilterPlan
from bisparse.plots import ACCENT, INK, PALE, save_figure
from bisparse.report import Column, Table, counted, to_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FamilyReport", "FilterReport", "Totals"]


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """One family of coupled channels.

    Attributes:
        name: the layer that writes them (``+n``: and n further ones).
        readers: the layers that read them.
        units: how many there were.
        kept: how many are left.
        total: sum of the sensitivities: the effective number of channels, at most ``units``.
        draws: draws with replacement that are expected to hit ``kept`` distinct channels.
        kappa: by how much shares on samples set apart exceeded the sensitivities.
        eps: the relative error that is guaranteed for the outputs of every layer that reads them, with probability
            1 - delta, on samples that kappa covers.
        vacuous: whether that guarantee says nothing: an error of 100% or more, or no channel left out.
        kept_share: sensitivity of the kept channels as a share of ``total``.
    """

    name: str
    readers: tuple[str, ...]
    units: int
    kept: int
    total: float | None = None
    draws: float | None = None
    kappa: float | None = None
    eps: float | None = None
    vacuous: bool | None = None
    kept_share: float | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What a network costs.

    Attributes:
        parameters: tied ones once.
        operations: multiply-adds per sample.
        seconds: median time of one call with the sample batch; ``None`` where it was not measured.
    """

    parameters: int
    operations: float
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class FilterReport:
    """Result of ``prune_filters``.

    Attributes:
        settings: what was asked for.
        families: all coupled channels that could be removed.
        left_out: name of a weight to the reason why its outputs stayed.
        before: cost of the network as it was.
        after: cost of the network as it is.
        level: the one number that fixed all widths: the eps of all families, the price (error for each parameter or
            multiply-add saved) or the share removed, as ``settings["allocation"]`` says.
        deviation: largest difference between the outputs of the small network and of the large one with zeros in place
            of what was removed, relative to the largest output: rounding.
        plan: what is kept of every tensor.
        seconds: duration, without the measurement of latency.
        notes: results of ``evaluate``, samples used, and the like.
    """

    settings: dict[str, Any]
    families: tuple[FamilyReport, ...]
    left_out: dict[str, str]
    before: Totals
    after: Totals
    level: float
    deviation: float
    plan: FilterPlan
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters_removed(self) -> float:
        """Share of the parameters that is gone."""
        return 1.0 - self.after.parameters / self.before.parameters

    @property
    def operations_removed(self) -> float:
        """Share of the multiply-adds that is gone."""
        return 1.0 - self.after.operations / self.before.operations

    @property
    def speedup(self) -> float | None:
        """Time before over time after; ``None`` where it was not measured."""
        if self.before.seconds is None or not self.after.seconds:
            return None
        return self.before.seconds / self.after.seconds

    def __getitem__(self, name: str) -> FamilyReport:
        """The family of that name."""
        for family in self.families:
            if family.name == name:
                return family
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; the plan is left out (it has a file of its own)."""
        content: dict[str, Any] = to_plain(
            {
                "settings": self.settings,
                "before": asdict(self.before),
                "after": asdict(self.after),
                "parameters_removed": self.parameters_removed,
                "operations_removed": self.operations_removed,
                "speedup": self.speedup,
                "level": self.level,
                "deviation": self.deviation,
                "seconds": self.seconds,
                "families": [asdict(family) for family in self.families],
                "left_out": self.left_out,
                "notes": self.notes,
            }
        )
        return content

    def to_table(self) -> Table:
        """One line per family, then the totals, then what stayed and why."""
        rows = [
            asdict(family) | {"guarantee": "vacuous" if family.vacuous else "holds" if family.eps else None}
            for family in self.families
        ]
        used = [c for c in _COLUMNS if any(row.get(c.key) is not None for row in rows)]
        notes = [
            f"parameters {self.before.parameters:,} -> {self.after.parameters:,} "
            f"({self.parameters_removed:.1%} removed), multiply-adds {self.before.operations:,.0f} -> "
            f"{self.after.operations:,.0f} ({self.operations_removed:.1%} removed)",
            *self._latency(),
            f"small network against large one with zeros: largest difference {self.deviation:.1g}",
            *(f"{name}: {value:.4g}" for name, value in self.notes.items() if isinstance(value, float)),
            *(f"left out: {name} ({reason})" for name, reason in self.left_out.items()),
        ]
        title = (
            f"{counted(len(self.families), 'family', 'families')} of channels, {self.settings.get('budget')}"
        )
        return Table(title, used, rows, notes)

    def _latency(self) -> list[str]:
        if self.before.seconds is None or self.after.seconds is None or self.speedup is None:
            return []
        before, after = 1e3 * self.before.seconds, 1e3 * self.after.seconds
        return [f"latency {before:.3g} ms -> {after:.3g} ms per call ({self.speedup:.2f}x)"]

    def plot(self, path: str | Path) -> Path:
        """Write a picture: channels before and after, family by family.

        Raises:
            ImportError: matplotlib is missing.
        """
        size = (7.0, 1.4 + 0.22 * len(self.families))
        title = f"{self.parameters_removed:.0%} of parameters, {self.operations_removed:.0%} of multiply-adds removed"
        return save_figure(Path(path), size, [self._draw], title=title)

    def _draw(self, axes: Axes) -> None:
        places = range(len(self.families))
        axes.barh(places, [family.units for family in self.families], color=PALE, label="before")
        axes.barh(places, [family.kept for family in self.families], color=ACCENT, label="kept")
        for place, family in zip(places, self.families, strict=True):
            if family.total is not None:
                axes.plot([family.total] * 2, [place - 0.4, place + 0.4], color=INK, linewidth=1.5)
        axes.set_yticks(places, [family.name for family in self.families], fontsize=6)
        axes.invert_yaxis()
        summed = any(family.total is not None for family in self.families)
        axes.set_xlabel("channels" + " (dark line: sum of the sensitivities)" * summed)
        axes.legend()


_COLUMNS = (
    Column("name", "written by"),
    Column("units", "channels", "count"),
    Column("kept", "kept", "count"),
    Column("total", "sum of s", "number", 1),
    Column("kept_share", "kept s", "share", 2),
    Column("draws", "draws", "number", 4),
    Column("kappa", "kappa", "number", 3),
    Column("eps", "proven eps", "number", 2),
    Column("guarantee", "guarantee", "text", 2),
)
