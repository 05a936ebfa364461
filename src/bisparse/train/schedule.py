"""When masks change, and how dense they are at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured

__all__ = ["Ramp", "Schedule"]


@dataclass(frozen=True, slots=True)
class Ramp:
    """Density that falls along a cubic curve (Zhu and Gupta 2017, arXiv 1710.01878).

    At step t the share of zeros is ``s1 + (s0 - s1) * (1 - (t - begin) / (end - begin))**3``, where s1 is the
    pattern's own share of zeros and s0 = 1 - ``density``.

    Attributes:
        begin: step at which the density starts to fall.
        end: step from which the pattern holds as given.
        density: share of kept weights before ``begin``.

    Raises:
        ValueError: ``end`` is not after ``begin``, or ``density`` is outside (0, 1].
    """

    begin: int
    end: int
    density: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end:
            raise ValueError(f"a ramp needs 0 <= begin < end, got begin={self.begin}, end={self.end}")
        if not 0.0 < self.density <= 1.0:
            raise ValueError(f"density={self.density}: a ramp starts at a share of kept weights in (0, 1]")

    def at(self, final: float, step: int) -> float:
        """Share of kept weights at a step, for a pattern that keeps the share ``final``."""
        left = 1.0 - min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return final + max(self.density - final, 0.0) * left**3


@dataclass(frozen=True, slots=True)
class Schedule:
    """When masks are chosen. Steps count completed optimizer steps; 0 is the moment of ``prepare``.

    Attributes:
        every: refresh masks after this many steps (counted from ``dense_until`` on); ``None`` takes the sparsifier's
            ``update_every``.
        start: no refresh before this step; masks chosen in ``prepare`` stay until then.
        freeze: no refresh after this step; 0 keeps the masks of ``prepare`` for ever.
        dense_until: the model is dense for this many steps, then gets its first masks.
        dense_from: from this step on the model is dense again (a dense tail); ``None`` = never.
        ramp: the density falls along a curve instead of at once. Masks are chosen at its end, too, so that the
            pattern holds from there on.

    Raises:
        TypeError: a step that is no whole number.
        ValueError: a step is negative, ``every`` is below 1, dense phases leave no step for masks, or masks freeze
            before the ramp has reached the pattern.
    """

    every: int | None = None
    start: int = 0
    freeze: int | None = None
    dense_until: int = 0
    dense_from: int | None = None
    ramp: Ramp | None = None

    def __post_init__(self) -> None:
        for name in ("every", "start", "freeze", "dense_until", "dense_from"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int):
                raise TypeError(f"{name}={value!r}: steps are whole numbers, got {type(value).__name__}")
            if value is not None and value < 0:
                raise ValueError(f"{name}={value}: a step is 0 or later")
        if self.every == 0:
            raise ValueError("every=0: masks are refreshed every 1 or more steps")
        if self.dense_from is not None and self.dense_from <= self.dense_until:
            raise ValueError(
                f"dense until step {self.dense_until} and dense from step {self.dense_from} on: no step is left "
                "for masks; let dense_from come later"
            )
        ends = [step for step in (self.freeze, self.dense_from) if step is not None]
        if self.ramp is not None and ends and min(ends) < self.ramp.end:
            raise ValueError(
                f"masks stay from step {min(ends)} on, but the ramp ends at step {self.ramp.end}: the pattern would "
                "never be reached; let the ramp end before"
            )

    @classmethod
    def static(cls) -> Schedule:
        """Masks are chosen once, in ``prepare``, and never change."""
        return cls(freeze=0)

    def with_default(self, every: int) -> Schedule:
        """This schedule with ``every`` filled in where it was left open."""
        return self if self.every is not None else replace(self, every=every)

    def is_dense(self, step: int) -> bool:
        """Whether the model is dense at this step."""
        return step < self.dense_until or (self.dense_from is not None and step >= self.dense_from)

    def moves(self, step: int) -> bool:
        """Whether masks may change right after this step."""
        return not self.is_dense(step) and self.start <= step and (self.freeze is None or step <= self.freeze)

    def due(self, step: int) -> bool:
        """Whether masks are chosen right after this step (0: in ``prepare``)."""
        if step in (0, self.dense_until, self.dense_from):
            return True
        ends = self.ramp is not None and step == self.ramp.end
        return self.moves(step) and (ends or (step - self.dense_until) % (self.every or 1) == 0)

    def pattern(self, final: Pattern, step: int) -> Pattern | None:
        """The pattern that masks chosen at this step obey; ``None`` = every weight is kept."""
        if self.is_dense(step):
            return None
        return final if self.ramp is None else _at_density(final, self.ramp.at(final.density, step))


def _at_density(final: Pattern, density: float) -> Pattern | None:
    """The sparsest pattern of the same kind and block that keeps at least this share."""
    if isinstance(final, Unstructured):
        sparsity = min(max(1.0 - density, 0.0), final.sparsity)
        return Unstructured(sparsity) if sparsity > 0.0 else None
    keep = max(final.keep, math.ceil(final.block * density - 1e-9))
    kind: type[NM] | type[TransposableNM] = type(final)
    return kind(keep, final.block) if keep < final.block else None
