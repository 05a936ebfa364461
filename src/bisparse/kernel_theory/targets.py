"""Targets and losses of the theorems."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Loss", "as_targets", "chosen_loss", "loss_and_residual"]

Loss: TypeAlias = Literal["auto", "squared", "cross_entropy"]


def chosen_loss(loss: Loss, y: Tensor, outputs: int) -> Literal["squared", "cross_entropy"]:
    """The loss that was meant: cross-entropy for class numbers and several outputs, else squared.

    Raises:
        ValueError: an unknown loss, or cross-entropy without class numbers.
    """
    if loss not in ("auto", "squared", "cross_entropy"):
        raise ValueError(f"loss={loss!r}: use 'auto', 'squared' or 'cross_entropy'")
    classes = not y.is_floating_point() and y.dim() == 1 and outputs > 1
    if loss == "cross_entropy" and not classes:
        raise ValueError("cross-entropy needs one class number (integer) per example and several outputs")
    if loss == "auto":
        return "cross_entropy" if classes else "squared"
    return loss


def as_targets(y: Tensor, like: Tensor) -> Tensor:
    """Targets (n, C) shaped as the outputs ``like``; class numbers become one-hot rows.

    Raises:
        ValueError: shapes or class numbers do not fit.
    """
    y = torch.as_tensor(y, device=like.device)
    count = like.shape[1]
    if len(y) != len(like):
        raise ValueError(f"{len(y)} targets for {len(like)} examples: one each")
    if not y.is_floating_point() and y.dim() == 1 and count > 1:
        if int(y.min()) < 0 or int(y.max()) >= count:
            raise ValueError(f"class numbers from {int(y.min())} to {int(y.max())}, but {count} outputs")
        return F.one_hot(y.long(), count).to(like)
    flat = y.reshape(len(y), -1).to(like)
    if flat.shape != like.shape:
        raise ValueError(f"targets of shape {tuple(y.shape)} do not fit outputs of shape {tuple(like.shape)}")
    return flat


def loss_and_residual(kind: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss and r (n, C), minus n times its derivative by the outputs.

    Squared: |y - f|²/(2 n) and y - f. Cross-entropy: its mean and y - softmax(f).
    """
    count = len(outputs)
    if kind == "squared":
        residual = targets - outputs
        return residual.square().sum() / (2 * count), residual
    return -(targets * outputs.log_softmax(1)).sum() / count, targets - outputs.softmax(1)
