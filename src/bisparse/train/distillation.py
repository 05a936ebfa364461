"""Learning from a larger network while training a smaller or sparser one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.compress.hidden import run_recorded
from bisparse.mixup import Mixture, mix_pairs
from bisparse.train.examples import Batch
from bisparse.train.hidden_hints import KeptIndices, hint_distance, layer_pairs
from bisparse.train.objective import CrossEntropy, Outcome, class_logits, class_numbers, pair

__all__ = ["Distillation"]


@dataclass(frozen=True, slots=True, eq=False)
class Distillation:
    """Cross-entropy mixed with the divergence from a teacher's predictions, for retraining what was pruned.

    With logits z of the model and t of the teacher, the loss of an example of class y is
    ``(1 - weight) * CE(z, y) + weight * T^2 * KL(softmax(t / T) || softmax(z / T))``; the factor T^2 keeps the two
    gradients comparable whatever the temperature (Hinton, Vinyals and Dean 2015, section 2). In evaluation mode the
    loss is the cross-entropy alone, so that losses compare with those of other objectives.

    With ``mixup`` both networks see images mixed in pairs: a teacher says little about images that it knows by heart,
    and much about those between them (Beyer et al., "Knowledge distillation: a good teacher is patient and
    consistent", CVPR 2022, section 3.2). The cross-entropy then mixes those of both classes. Pairs and shares come
    from PyTorch's global generator, which a :class:`bisparse.train.trainer.Trainer` seeds at every step.

    With ``hidden`` every layer is also taught what it should receive: the loss grows by ``hidden`` times the mean, over
    all layers with weights, of the relative squared distance between a layer's input and the same channels of the
    teacher's (Romero et al., "FitNets", ICLR 2015, section 2.2, without their regressors: after pruning every channel
    has its original). That is for few examples, which say more through all layers than through the outputs alone; with
    many it costs accuracy (measured in docs/filters.md). Layers that read the network's input have nothing to learn and
    do not count; nor do layers that lost inputs and are neither linear nor convolutions, as nothing says which channels
    they read.

    Cost: one forward pass of the teacher per batch, without gradient; with ``hidden`` the inputs of all its layers are
    in memory.

    Attributes:
        teacher: as it was before pruning, in evaluation mode, on the model's device.
        weight: share of the divergence, from 0 to 1.
        temperature: T, above 0.
        mixup: largest share of the second input of a pair, from 0 (inputs as they are) to 1; see
            :func:`bisparse.mixup.mix_pairs`.
        hidden: weight of what the layers receive, 0 (the outputs alone) or more. ``torch.compile`` passes over the
            hooks that this needs, and activation checkpoints with ``use_reentrant=True`` over its gradients.
        kept: what is left of the teacher's tensors, ``plan.kept`` of a :class:`bisparse.filters.FilterPlan`; empty
            where no filters were removed. Only ``hidden`` reads it.

    Raises:
        ValueError: a number out of its range, or a teacher in training mode (its batch norms would change).
        TypeError: ``kept`` is no mapping.
    """

    teacher: nn.Module
    weight: float = 0.9
    temperature: float = 4.0
    mixup: float = 0.0
    hidden: float = 0.0
    kept: KeptIndices = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("weight", "mixup"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: a share lies between 0 and 1")
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature}: must be above 0, and finite")
        if not 0.0 <= self.hidden < float("inf"):
            raise ValueError(f"hidden={self.hidden}: must be 0 or more")
        if not isinstance(self.kept, Mapping):
            raise TypeError(f"kept is a {type(self.kept).__name__}: pass plan.kept")
        if self.teacher.training:
            raise ValueError("the teacher is in training mode: call teacher.eval() first")

    def __call__(self, model: nn.Module, batch: Batch) -> Outcome:
        """The model's outcome on a batch of pairs.

        Raises:
            TypeError: a batch of keyword arguments.
            ValueError: model and teacher return logits of different shapes; targets that are no class numbers, or not
                one for each prediction; or inputs to be mixed that are not of floating point, or have several targets
                each; with ``hidden``, layers that are not those of teacher and ``kept``.
        """
        if not model.training:
            return CrossEntropy()(model, batch)
        inputs, targets = pair(batch)
        mixture = mix_pairs(inputs, self.mixup) if self.mixup else None
        if mixture is not None:
            inputs = mixture.inputs
        output, soft_output, distance = self._run(model, inputs)
        logits, soft = class_logits(output), class_logits(soft_output)
        if logits.shape != soft.shape:
            raise ValueError(
                f"the model's logits are {tuple(logits.shape)}, the teacher's {tuple(soft.shape)}: "
                "distillation needs the same classes in the same order"
            )
        targets = class_numbers(targets, logits)
        own = _cross_entropy(logits, targets, mixture)
        loss = (1.0 - self.weight) * own + self.weight * self._divergence(logits, soft) + distance
        hits = (logits.detach().argmax(-1) == targets).sum()
        return Outcome(loss, hits, torch.tensor(len(targets), device=targets.device))

    def _run(self, model: nn.Module, inputs: Tensor) -> tuple[Any, Any, Tensor | float]:
        """Outputs of model and teacher, and the weighted distance of what their layers receive."""
        pairs = layer_pairs(model, self.teacher, self.kept) if self.hidden else []
        with torch.no_grad():
            goal = run_recorded([pair.teacher for pair in pairs], partial(self.teacher, inputs))
        found = run_recorded([pair.own for pair in pairs], partial(model, inputs))
        distance = self.hidden * hint_distance(pairs, found[1], goal[1]) if self.hidden else 0.0
        return found[0], goal[0], distance

    def _divergence(self, logits: Tensor, soft: Tensor) -> Tensor:
        """T^2 times the mean of KL(teacher || model)."""
        model, teacher = (F.log_softmax(values / self.temperature, -1) for values in (logits, soft))
        return self.temperature**2 * F.kl_div(model, teacher, log_target=True, reduction="batchmean")


def _cross_entropy(logits: Tensor, targets: Tensor, mixture: Mixture | None) -> Tensor:
    """Mean over the predictions; of mixed inputs, of both classes by their shares."""
    if mixture is None:
        return F.cross_entropy(logits, targets)
    if len(targets) != len(mixture.share):
        raise ValueError(
            f"{len(mixture.share)} inputs with {len(targets)} targets cannot be mixed, one each could: use mixup=0"
        )
    one, two = (F.cross_entropy(logits, t, reduction="none") for t in (targets, targets[mixture.other]))
    return one.lerp(two, mixture.share.to(one)).mean()
