"""Dense gradients that a refresh will need, collected while they pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.schedule import Schedule

__all__ = ["Signals"]


@dataclass(frozen=True, slots=True)
class Signals:
    """What is collected, in ``weight.extra``, from where it travels in checkpoints.

    The gradient of a parameter that is masked at rest is dense: that of dropped entries is there, and costs nothing
    but a copy at the steps that count. A momentum costs one tensor per weight, and a pass at every step.

    Attributes:
        needs: ``"gradient"``, ``"momentum"``, both or none.
        gradients: the mean of so many gradients, up to that of the step before the refresh.
        beta: weight of the past in the momentum.
        schedule: when refreshes come; ``None`` = only ``due`` tells.
    """

    needs: frozenset[str]
    gradients: int = 1
    beta: float = 0.9
    schedule: Schedule | None = None

    def look_(self, weight: MaskedWeight, *, due: bool, scale: Tensor | None) -> None:
        """Take up the gradient of a step."""
        if not self.needs or weight.gradient is None:
            return
        extra = weight.extra
        if "momentum" in self.needs:
            gradient = _unscaled(weight.gradient, scale)
            if "momentum" not in extra:
                extra["momentum"] = torch.zeros_like(gradient)
            extra["momentum"].lerp_(gradient, 1.0 - self.beta)
        if "gradient" in self.needs and (due or self._soon(weight.steps)):
            self._add_(extra, _unscaled(weight.gradient, scale))

    def complete(self, weight: MaskedWeight) -> bool:
        """Whether everything that is needed has come."""
        return self.needs <= weight.extra.keys()

    def take(self, weight: MaskedWeight) -> Mapping[str, Tensor]:
        """What was collected; gradients are used up, as magnitudes, momentum goes on."""
        found = {name: weight.extra[name] for name in self.needs}
        if "gradient" in found:
            found["gradient"] = weight.extra.pop("gradient").abs_()
        if "gradients" in weight.extra:
            found["gradient"] /= weight.extra.pop("gradients")
        return found

    def _add_(self, extra: dict[str, Tensor], gradient: Tensor) -> None:
        """One more of the gradients whose mean is wanted: their sum, and how many they are."""
        if self.gradients > 1 and "gradient" in extra:
            extra["gradient"] += gradient
            extra["gradients"] += 1
            return
        extra["gradient"] = gradient.clone()
        if self.gradients > 1:
            extra["gradients"] = torch.ones((), dtype=torch.int64)

    def _soon(self, steps: int) -> bool:
        """Whether this step's gradient is one of the last before a refresh."""
        if self.schedule is None:
            return False
        return any(self.schedule.due(steps + 1 + ahead) for ahead in range(1, self.gradients))


def _unscaled(gradient: Tensor, scale: Tensor | None) -> Tensor:
    return gradient if scale is None else gradient / scale
