"""What changed at every refresh: flip rate, SAD, kept magnitude, time; per layer and in total."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.measures.bits import count, pack, unpack

__all__ = ["LayerFigures", "Record"]


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One weight (or all together) at its last refresh.

    Attributes:
        entries: how many it has.
        kept: how many of them the mask keeps.
        sad: how many changed between kept and dropped at this refresh (sum of absolute differences).
        sad_from_start: how many differ from the first mask.
        sad_window: how many differ from the mask at the start of the current window.
        forced: those of ``sad`` that the column constraint decided; the others follow the magnitudes.
        kept_magnitude: sum of absolute W that the mask keeps.
        magnitude: sum of absolute W.
        kept_before: how many entries the mask before kept.
        kept_first: how many the first mask kept.
        explored: how many any mask has kept so far.
    """

    entries: float = 0.0
    kept: float = 0.0
    sad: float = 0.0
    sad_from_start: float = 0.0
    sad_window: float = 0.0
    forced: float = 0.0
    kept_magnitude: float = 0.0
    magnitude: float = 0.0
    kept_before: float = 0.0
    kept_first: float = 0.0
    explored: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Raw counts, and the same as shares of all entries.

        ``edge_distance`` is the share of edges that two masks A and B do not have in common, |A xor B| / (|A| + |B|):
        0 for equal, 1 for disjoint ones. ``explored`` is the in-time over-parameterisation rate R_s of Liu et al. 2021
        (arXiv 2102.02887): the share of entries that any mask has kept so far, those included that followed their
        weights between two measures; what is kept while the model is dense, before the first mask, does not count.
        """
        entries = max(self.entries, 1.0)
        return {
            "entries": self.entries,
            "density": self.kept / entries,
            "sad": self.sad,
            "sad_from_start": self.sad_from_start,
            "sad_window": self.sad_window,
            "flip_rate": self.sad / entries,
            "flip_rate_from_start": self.sad_from_start / entries,
            "flip_rate_window": self.sad_window / entries,
            "flips_forced": self.forced,
            "flips_magnitude": self.sad - self.forced,
            "flip_rate_forced": self.forced / entries,
            "edge_distance": self.sad / max(self.kept + self.kept_before, 1.0),
            "edge_distance_from_start": self.sad_from_start / max(self.kept + self.kept_first, 1.0),
            "explored": self.explored / entries,
            "kept_magnitude": self.kept_magnitude / self.magnitude if self.magnitude else 1.0,
        }


def total(figures: Iterable[LayerFigures]) -> LayerFigures:
    """All layers together."""
    rows = [[getattr(f, name) for name in LayerFigures.__dataclass_fields__] for f in figures]
    return LayerFigures(*(sum(column) for column in zip(*rows, strict=True))) if rows else LayerFigures()


@dataclass(slots=True)
class Record:
    """Figures of every weight, and the masks that they are compared with.

    Attributes:
        window: refreshes in one window.
        layers: the last figures by weight name.
        first: packed first mask by weight name.
        opening: packed mask at the start of the current window, by weight name.
        history: totals of every refresh.
    """

    window: int = 10
    layers: dict[str, LayerFigures] = field(default_factory=dict)
    first: dict[str, Tensor] = field(default_factory=dict)
    opening: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @torch.no_grad()
    def add(self, weight: MaskedWeight, new: Tensor, forced: float | None) -> None:
        """Compare a new mask with the old ones, while ``weight`` still has the old mask and its parameter
        holds W; what the new one keeps has been noted in ``weight.fired``.
        """
        name, old, values = weight.name, weight.mask, weight.values
        if name not in self.first:
            self.first[name] = self.opening[name] = pack(new)
            old = new
        elif (weight.refreshes - 1) % self.window == 0:
            self.opening[name] = pack(old)
        first, fired = (
            unpack(bits, new.shape)
            for bits in (self.first[name], pack(new) if weight.fired is None else weight.fired)
        )
        others = (old, first, unpack(self.opening[name], new.shape))
        counts = [count(mask) for mask in (new, *(new ^ other for other in others))]
        edges = [count(mask) for mask in (old, first, fired)]
        magnitude = values.abs()
        whole, kept = magnitude.sum(), magnitude.mul_(new).sum()
        forced = 0.0 if old is new else forced or 0.0
        figures = torch.stack(
            [
                torch.as_tensor(x, device=values.device, dtype=torch.float64)
                for x in (new.numel(), *counts, forced, kept, whole, *edges)
            ]
        )
        if weight.sharding is not None:
            figures = weight.sharding.sum_(figures)
        self.layers[name] = LayerFigures(*figures.tolist())

    def close(self, step: int) -> None:
        """All weights of a refresh are added: note the totals."""
        if self.history and self.history[-1]["step"] == step:  # several optimizers, the same step
            self.history.pop()
        if self.layers:
            self.history.append({"step": float(step), **self.total().to_dict()})

    def total(self) -> LayerFigures:
        """All weights together."""
        return total(self.layers.values())
