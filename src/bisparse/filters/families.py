"""Units that lie in the same dimensions of the same tensors: what a layer's channels are, once coupled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bisparse.filters.indices import Ids
from bisparse.filters.trace import Trace
from bisparse.filters.walk import Product

__all__ = ["Family", "find_families", "frozen_layers"]


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Interchangeable units: each consists of the same number of slices of the same tensors.

    Attributes:
        name: the weights that write them, e.g. ``"layer1.0.conv1"``.
        units: their numbers, ascending.
        written: products that write them.
        read: products that read them, depthwise ones left out.
    """

    name: str
    units: Ids
    written: tuple[Product, ...]
    read: tuple[Product, ...]

    def __len__(self) -> int:
        return len(self.units)


def find_families(trace: Trace) -> list[Family]:
    """All units that may be removed, grouped, in the order in which the network writes them."""
    places: dict[int, list[str]] = {}
    for name, dims in trace.parameters.items():
        for number, axis in enumerate(dims):
            if axis is not None:
                _note(places, trace.units[axis], f"{name}/{number}")
    for padding in trace.paddings:
        for ids in (padding.front, padding.back):
            _note(places, trace.units[ids], f"{padding.module}/padding")
    groups: dict[tuple[str, ...], list[int]] = {}
    for unit, found in places.items():
        if unit not in trace.frozen:
            groups.setdefault(tuple(sorted(found)), []).append(unit)
    families = [_family(trace, np.array(sorted(members))) for members in groups.values()]
    order = {id(product): number for number, product in enumerate(trace.products)}
    families.sort(key=lambda family: (order[id(family.written[0])], int(family.units[0])))
    return [replace(family, name=name) for family, name in zip(families, _unique(families), strict=True)]


def _unique(families: list[Family]) -> list[str]:
    """Names, numbered where several families have the same writers."""
    names = [family.name for family in families]
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _note(places: dict[int, list[str]], units: Ids, place: str) -> None:
    for unit in units.tolist():
        places.setdefault(unit, []).append(place)


def _family(trace: Trace, units: Ids) -> Family:
    written = [p for p in trace.products if np.isin(trace.units[p.outputs], units).any()]
    read = [p for p in trace.products if not p.depthwise and np.isin(trace.units[p.inputs], units).any()]
    makers = [p.weight.rpartition(".")[0] or p.weight for p in written]
    name = makers[0] if len(makers) == 1 else f"{makers[0]} +{len(makers) - 1}"
    return Family(name, units, tuple(written), tuple(read))


def frozen_layers(trace: Trace) -> dict[str, str]:
    """Weights of which no output may be removed, with the reason."""
    reasons: dict[str, str] = {}
    for product in trace.products:
        units = trace.units[product.outputs].tolist()
        if all(unit in trace.frozen for unit in units):
            reasons[product.weight] = trace.frozen[units[0]]
    return reasons
