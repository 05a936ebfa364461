"""Why an entry changed: by its magnitude, or because a column was full."""

from __future__ import annotations

import torch
from torch import Tensor

from bisparse.pattern import TransposableNM

__all__ = ["forced_flips"]


def forced_flips(scores: Tensor, old: Tensor, new: Tensor, pattern: TransposableNM) -> int:
    """Count the changed entries that the column constraint decided.

    An entry that changed is *forced* where the row alone would decide otherwise: it is among the ``keep``
    largest of its group of ``block`` but is dropped, or it is not and is kept. The other changes follow the
    magnitudes. Ties go to the lower column.

    Args:
        scores: (batch, rows, columns); magnitudes count.
        old: mask before, same shape.
        new: mask after, same shape.
        pattern: what the new mask obeys.

    Returns:
        A number between 0 and the number of changed entries.

    Cost: one pass over the masks, and ``block`` comparisons for each changed entry.
    """
    changed = torch.nonzero(old ^ new)  # (flips, 3)
    if not len(changed):
        return 0
    batch, row, column = changed.unbind(1)
    width, block = scores.shape[-1], pattern.block
    members = (column - column % block).unsqueeze(1) + torch.arange(block, device=scores.device)
    inside = members < width
    group = scores[batch.unsqueeze(1), row.unsqueeze(1), members.clamp(max=width - 1)].abs()
    own = scores[batch, row, column].abs().unsqueeze(1)
    ahead = (group > own) | ((group == own) & (members < column.unsqueeze(1)))
    by_row = (ahead & inside).sum(1) < pattern.keep
    return int((by_row != new[batch, row, column]).sum().item())
