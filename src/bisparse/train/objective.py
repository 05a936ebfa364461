"""What a training loop minimises, and what it counts on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.train.examples import Batch

__all__ = ["CrossEntropy", "Objective", "Outcome", "class_logits", "class_numbers", "own_loss", "pair"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One batch.

    Attributes:
        loss: mean over what was predicted, with gradient.
        hits: how many predictions were right, a tensor without dimensions.
        count: how many predictions were made (examples, or tokens of a language model), likewise.
    """

    loss: Tensor
    hits: Tensor
    count: Tensor


Objective: TypeAlias = Callable[[nn.Module, Batch], Outcome]


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Cross-entropy of logits (..., classes) against class numbers (...); the batch is (inputs, targets).

    The model returns the logits, or an object that has them as ``logits``. A single logit z decides between two
    classes: it stands for the logits (0, z), so that the loss is the logistic one.

    Attributes:
        label_smoothing: share of the probability that is spread over all classes, while training only.
    """

    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> Outcome:
        """The model's outcome on a batch of pairs.

        Raises:
            TypeError: a batch of keyword arguments.
            ValueError: targets that are no class numbers, or not one for each prediction.
        """
        inputs, targets = pair(batch)
        logits = class_logits(model(inputs))
        targets = class_numbers(targets, logits)
        smoothing = self.label_smoothing if model.training else 0.0
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        hits = (logits.detach().argmax(-1) == targets).sum()
        return Outcome(loss, hits, torch.tensor(len(targets), device=targets.device))


def class_logits(output: Any) -> Tensor:
    """(predictions, classes) of logits (..., classes), or of an object that has them as ``logits``.

    A single logit z stands for the logits (0, z) of two classes.
    """
    logits = (output if isinstance(output, Tensor) else output.logits).flatten(0, -2)
    return torch.cat([torch.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits


def class_numbers(targets: Tensor, logits: Tensor) -> Tensor:
    """(predictions,) the class numbers that belong to logits (predictions, classes).

    Raises:
        ValueError: another type, or another number of them.
    """
    if targets.dtype not in (torch.int64, torch.uint8):
        raise ValueError(
            f"targets are {str(targets.dtype).removeprefix('torch.')} {tuple(targets.shape)}: cross-entropy needs "
            "class numbers of int64 (of one-hot rows: argmax(-1))"
        )
    if targets.numel() != len(logits):
        raise ValueError(
            f"targets {tuple(targets.shape)} for {len(logits)} predictions of {logits.shape[-1]} classes: give one "
            "class number for each prediction"
        )
    return targets.flatten()


def pair(batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch as (inputs, targets).

    Raises:
        TypeError: it holds keyword arguments.
    """
    if isinstance(batch, Mapping):
        raise TypeError(
            "a batch of keyword arguments needs a model that returns its own loss: objective own_loss"
        )
    return batch


def own_loss(model: nn.Module, batch: Batch) -> Outcome:
    """The loss that a ``transformers`` model returns for keyword arguments that contain its labels.

    Right predictions are counted from ``logits`` and ``labels`` (-100 = no label; a causal model's labels are
    shifted by one) or, for question answering, where both the start and the end of the answer are right.

    Raises:
        TypeError: the batch is a pair, or the model returns no loss.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(
            "own_loss needs batches of keyword arguments (a mapping), got a pair: use CrossEntropy"
        )
    output: Any = model(**batch)
    loss = getattr(output, "loss", None)
    if not isinstance(loss, Tensor):
        raise TypeError(f"{type(model).__name__} returned no loss for {sorted(batch)}: name its labels")
    if "start_positions" in batch:
        right = (output.start_logits.argmax(-1) == batch["start_positions"]) & (
            output.end_logits.argmax(-1) == batch["end_positions"]
        )
        return Outcome(loss, right.sum(), torch.tensor(len(right), device=right.device))
    logits, labels = output.logits.detach(), batch["labels"]
    if logits.dim() == 3 and "causal" in type(_bare(model)).__name__.lower():
        logits, labels = logits[:, :-1], labels[:, 1:]
    if logits.dim() == labels.dim() + 1:
        counted = labels != -100
        return Outcome(loss, ((logits.argmax(-1) == labels) & counted).sum(), counted.sum())
    return Outcome(loss, torch.zeros((), device=loss.device), torch.tensor(len(labels), device=loss.device))


def _bare(model: nn.Module) -> nn.Module:
    inner = getattr(model, "module", model)
    return inner if isinstance(inner, nn.Module) else model
