"""Parameters and multiply-adds as functions of the widths of all families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from bisparse.filters.families import Family
from bisparse.filters.indices import Ids
from bisparse.filters.trace import Trace

__all__ = ["Costs", "costs_of"]


@dataclass(frozen=True, slots=True, eq=False)
class _Term:
    """factor * product over axes of (fixed + slopes @ widths)."""

    factor: float
    fixed: tuple[int, ...]
    slopes: tuple[Ids, ...]

    def at(self, widths: Ids) -> float:
        value = self.factor
        for fixed, slopes in zip(self.fixed, self.slopes, strict=True):
            value *= fixed + int(slopes @ widths)
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What a network of given widths costs."""

    _parameters: tuple[_Term, ...]
    _operations: tuple[_Term, ...]
    _other: int

    def parameters(self, widths: Sequence[int]) -> int:
        """Parameters, tied ones once."""
        chosen = np.array(widths, dtype=np.int64)
        return self._other + round(sum(term.at(chosen) for term in self._parameters))

    def operations(self, widths: Sequence[int]) -> float:
        """Multiply-adds of convolutions, linear maps and attention per sample (customarily called FLOPs)."""
        chosen = np.array(widths, dtype=np.int64)
        return sum(term.at(chosen) for term in self._operations)


def costs_of(model: nn.Module, trace: Trace, families: Sequence[Family]) -> Costs:
    """Cost functions of a traced model."""
    family_of = {int(unit): number for number, family in enumerate(families) for unit in family.units}
    sizes = np.array([len(family) for family in families], dtype=np.int64)

    def term(factor: float, axes: Sequence[Ids]) -> _Term:
        fixed, slopes = [], []
        for axis in axes:
            owners = [family_of.get(unit, -1) for unit in trace.units[axis].tolist()]
            counts = np.bincount([owner for owner in owners if owner >= 0], minlength=len(sizes))
            fixed.append(owners.count(-1))
            slopes.append((counts // np.maximum(sizes, 1)).astype(np.int64))
        return _Term(factor, tuple(fixed), tuple(slopes))

    known = dict(model.named_parameters(remove_duplicate=False))
    counted = {
        id(known[name]): name for name in trace.parameters if name in known
    }  # tied ones once, by any name
    parameters = [
        term(1.0, [axis for axis in trace.parameters[name] if axis is not None]) for name in counted.values()
    ]
    other = sum(p.numel() for p in model.parameters() if id(p) not in counted)
    operations = [term(cost.factor, cost.axes) for cost in trace.costs]
    return Costs(tuple(parameters), tuple(operations), other)
