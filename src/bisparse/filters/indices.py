"""Which indices of which tensors must go together: numbered indices, joined in pairs."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "Dims", "Ids", "Indices"]

Ids: TypeAlias = npt.NDArray[np.int64]
Axis: TypeAlias = "Ids | None"
"""Numbers of the indices along one dimension; ``None``: a dimension that never changes (batch, pixels)."""
Dims: TypeAlias = "tuple[Axis, ...]"


class Indices:
    """Numbers for indices of tensors, the pairs that are removed together, and what may not be removed.

    Two indices that are joined, directly or through others, form one *unit*: they are kept or removed as one.
    """

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[tuple[Ids, Ids]] = []
        self._frozen: list[tuple[Ids, str]] = []

    def new(self, count: int) -> Ids:
        """So many indices that nothing is known about."""
        first, self._count = self._count, self._count + count
        return np.arange(first, self._count)

    def join(self, first: Axis, second: Axis, reason: str = "meets a dimension of fixed size") -> Axis:
        """Couple two dimensions of equal size, index by index; where one is fixed, the other becomes fixed."""
        if first is None or second is None:
            self.freeze(first, reason)
            self.freeze(second, reason)
            return None
        if len(first) != len(second):
            raise ValueError(f"cannot couple {len(first)} indices with {len(second)}: sizes must be equal")
        self._pairs.append((first, second))
        return first

    def join_within(self, rows: Ids) -> None:
        """Couple all indices of a column of a (n, columns) array with each other."""
        for row in rows[1:]:
            self._pairs.append((rows[0], row))

    def freeze(self, axis: Axis, reason: str) -> None:
        """Never remove these."""
        if axis is not None and axis.size:
            self._frozen.append((axis.ravel(), reason))

    def units(self) -> Ids:
        """(count,) the smallest number among all indices that go together with each index."""
        root = np.arange(self._count)
        first = np.concatenate([pair[0].ravel() for pair in self._pairs] or [root[:0]])
        second = np.concatenate([pair[1].ravel() for pair in self._pairs] or [root[:0]])
        while True:
            before = root.copy()
            low = np.minimum(root[first], root[second])
            np.minimum.at(root, root[first], low)
            np.minimum.at(root, root[second], low)
            while (root[root] != root).any():
                root = root[root]
            if (root == before).all():
                return root

    def frozen(self, units: Ids) -> dict[int, str]:
        """Unit to the first reason why it stays, for every unit that stays."""
        reasons: dict[int, str] = {}
        for ids, reason in self._frozen:
            for unit in np.unique(units[ids]).tolist():
                reasons.setdefault(unit, reason)
        return reasons
