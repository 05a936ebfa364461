"""What an allocation is: how many weights each layer keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bisparse.pattern import Pattern, Unstructured
from bisparse.train.allocation.counts import whole_counts
from bisparse.train.topology.selection import keeping
from bisparse.weights import Weight

__all__ = ["Allocation"]


class Allocation:
    """Divides a number of weights among layers. Override ``densities``, and ``total`` where it sets its own."""

    def densities(self, weights: Sequence[Weight], total: int) -> list[float]:
        """The share of each layer that is kept, in [0, 1].

        Args:
            weights: the layers.
            total: weights that all of them keep together.
        """
        raise NotImplementedError

    def total(self, weights: Sequence[Weight], patterns: Sequence[Unstructured]) -> int:
        """How many weights all layers keep together; by default what their patterns keep."""
        sizes = [weight.parameter.numel() for weight in weights]
        return round(sum(size * pattern.density for size, pattern in zip(sizes, patterns, strict=True)))

    def assign(self, weights: Sequence[Weight], patterns: Mapping[str, Pattern]) -> dict[str, Pattern]:
        """New patterns for the weights with an unstructured one; others keep theirs, and do not count.

        The total is exact to one weight (every layer keeps at least one).

        Raises:
            ValueError: no weight has an unstructured pattern, or the numbers make no sense.
        """
        own = {w.name: p for w in weights if isinstance(p := patterns[w.name], Unstructured)}
        if not own:
            raise ValueError(
                f"{type(self).__name__} divides unstructured sparsity among layers, but the pattern is "
                f"{next(iter(patterns.values()))}, the same number in every tile: leave allocation out"
            )
        chosen = [weight for weight in weights if weight.name in own]
        total = self.total(chosen, list(own.values()))
        sizes = [weight.parameter.numel() for weight in chosen]
        counts = whole_counts(self.densities(chosen, total), sizes, total)
        new = {w.name: keeping(n, size) for w, n, size in zip(chosen, counts, sizes, strict=True)}
        return {**patterns, **new}
