"""What happens to thresholds that leave almost nothing of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Reset"]


@dataclass(frozen=True, slots=True)
class Reset:
    """Where at most the share ``level`` of a weight exceeds its thresholds, they are set back.

    ``zero`` starts the weight anew, dense, as the paper does: it smooths training with a penalty that is too strong,
    and gives saw-teeth where the right density is near ``level``. ``floor`` lowers all thresholds of the weight by the
    same amount, so that exactly the share ``level`` stays. ``off`` does nothing.

    Attributes:
        mode: see above.
        level: share of the weight.

    Raises:
        ValueError: an unknown mode, or ``level`` outside [0, 1).

    Source: Liu et al. 2020 (arXiv 2005.06870), appendix A.1.
    """

    mode: Literal["zero", "floor", "off"] = "zero"
    level: float = 0.01

    def __post_init__(self) -> None:
        if self.mode not in ("zero", "floor", "off"):
            raise ValueError(f'mode={self.mode!r}: choose "zero", "floor" or "off"')
        if not 0.0 <= self.level < 1.0:
            raise ValueError(f"level={self.level}: a share of the weight in [0, 1)")

    def due(self, kept: float, entries: int) -> bool:
        """Whether so few entries are left."""
        return self.mode != "off" and entries > 0 and kept <= self.level * entries

    def apply_(self, thresholds: Tensor, saliency: Tensor) -> None:
        """Set thresholds back.

        Args:
            thresholds: of one weight.
            saliency: magnitude minus threshold of each of its entries.
        """
        if self.mode == "zero":
            thresholds.zero_()
            return
        count = max(round(self.level * saliency.numel()), 1)
        largest = torch.topk(saliency.flatten(), min(count + 1, saliency.numel())).values
        thresholds.add_(largest[-2:].mean().clamp(max=0.0))
