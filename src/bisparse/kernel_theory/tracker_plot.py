"""The picture of a kernel along training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bisparse.kernel_theory.snapshot import Snapshot
from bisparse.plots import ACCENT, INK, PALE, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_snapshots"]


def plot_snapshots(snapshots: Sequence[Snapshot], path: Path) -> Path:
    """Three panels: spectra from pale to dark, alignments, velocity with flips.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there are no snapshots.
    """
    if not snapshots:
        raise ValueError("no snapshots to draw: call observe(model, step) while training")
    panels = [
        lambda axes: _spectra(axes, snapshots),
        lambda axes: _alignments(axes, snapshots),
        lambda axes: _motion(axes, snapshots),
    ]
    return save_figure(path, (13.0, 3.8), panels)


def _spectra(axes: Axes, snapshots: Sequence[Snapshot]) -> None:
    for number, snapshot in enumerate(snapshots):
        share = number / max(len(snapshots) - 1, 1)
        label = f"step {snapshot.step}" if number in (0, len(snapshots) - 1) else None
        values = [value for value in snapshot.eigenvalues if value > 0]
        axes.loglog(range(1, len(values) + 1), values, color=INK, alpha=0.15 + 0.85 * share, label=label)
    _tidy(axes, "Largest eigenvalues", "index")


def _alignments(axes: Axes, snapshots: Sequence[Snapshot]) -> None:
    steps = [snapshot.step for snapshot in snapshots]
    if not math.isnan(snapshots[0].alignment):
        axes.plot(steps, [s.alignment for s in snapshots], ".-", color=INK, label="with y yᵀ")
    axes.plot(steps, [s.cka_start for s in snapshots], ".-", color=ACCENT, label="CKA with the start")
    axes.plot(steps[1:], [s.cka_last for s in snapshots[1:]], ":", color=ACCENT, label="CKA with the last")
    axes.set_ylim(0.0, 1.02)
    _tidy(axes, "Centred alignment", "step")


def _motion(axes: Axes, snapshots: Sequence[Snapshot]) -> None:
    steps = [snapshot.step for snapshot in snapshots[1:]]
    axes.plot(steps, [s.velocity for s in snapshots[1:]], ".-", color=INK, label="kernel velocity")
    flips = [s.flip_rate for s in snapshots[1:] if s.flip_rate is not None]
    if flips:
        axes.plot(steps[-len(flips) :], flips, ".-", color=ACCENT, label="flip rate between snapshots")
    if any(s.velocity > 0 for s in snapshots[1:]):
        axes.set_yscale("symlog", linthresh=1e-6)
    _tidy(axes, "Motion", "step")


def _tidy(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(label)
    axes.grid(color=PALE)
    axes.legend(fontsize=8)
