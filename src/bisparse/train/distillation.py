"""Learning from a larger network while training a smaller or sparser one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.train.examples import Batch
from bisparse.train.objective import CrossEntropy, Outcome, class_logits, pair

__all__ = ["Distillation"]


@dataclass(frozen=True, slots=True, eq=False)
class Distillation:
    """Cross-entropy mixed with the divergence from a teacher's predictions, for retraining what was pruned.

    With logits z of the model and t of the teacher, the loss of an example of class y is
    ``(1 - weight) * CE(z, y) + weight * T^2 * KL(softmax(t / T) || softmax(z / T))``; the factor T^2 keeps the two
    gradients comparable whatever the temperature (Hinton, Vinyals and Dean 2015, section 2). In evaluation mode the
    loss is the cross-entropy alone, so that losses compare with those of other objectives.

    Cost: one forward pass of the teacher per batch, without gradient.

    Attributes:
        teacher: as it was before pruning, in evaluation mode, on the model's device.
        weight: share of the divergence, from 0 to 1.
        temperature: T, above 0.

    Raises:
        ValueError: a number out of its range, or a teacher in training mode (its batch norms would change).
    """

    teacher: nn.Module
    weight: float = 0.9
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"weight={self.weight}: a share lies between 0 and 1")
        if not self.temperature > 0.0:
            raise ValueError(f"temperature={self.temperature}: must be above 0")
        if self.teacher.training:
            raise ValueError("the teacher is in training mode: call teacher.eval() first")

    def __call__(self, model: nn.Module, batch: Batch) -> Outcome:
        """The model's outcome on a batch of pairs.

        Raises:
            TypeError: a batch of keyword arguments.
            ValueError: model and teacher return logits of different shapes.
        """
        if not model.training:
            return CrossEntropy()(model, batch)
        inputs, targets = pair(batch)
        logits = class_logits(model(inputs))
        with torch.no_grad():
            soft = class_logits(self.teacher(inputs))
        if logits.shape != soft.shape:
            raise ValueError(
                f"the model's logits are {tuple(logits.shape)}, the teacher's {tuple(soft.shape)}: "
                "distillation needs the same classes in the same order"
            )
        targets = targets.flatten()
        loss = (1.0 - self.weight) * F.cross_entropy(logits, targets) + self.weight * self._divergence(
            logits, soft
        )
        hits = (logits.detach().argmax(-1) == targets).sum()
        return Outcome(loss, hits, torch.tensor(len(targets), device=targets.device))

    def _divergence(self, logits: Tensor, soft: Tensor) -> Tensor:
        """T^2 times the mean of KL(teacher || model)."""
        model, teacher = (F.log_softmax(values / self.temperature, -1) for values in (logits, soft))
        return self.temperature**2 * F.kl_div(model, teacher, log_target=True, reduction="batchmean")
