"""A plain training loop, and the accuracy that it reaches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bisparse.zoo.split import Split

__all__ = ["accuracy", "fit"]


def fit(
    model: nn.Module,
    data: Split,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    batch: int = 64,
    seed: int = 0,
    after_step: Callable[[], None] | None = None,
) -> float:
    """Train with AdamW, cross-entropy and a cosine learning rate that ends at 0.

    Args:
        model: trained in place, on the device where its parameters are; left in training mode.
        data: the training part is used, the test part is not looked at.
        epochs: passes over the training part; 0 changes nothing.
        learning_rate: at the first step.
        weight_decay: decoupled, as AdamW applies it.
        batch: examples per step; the last batch of an epoch may be smaller.
        seed: of the order of the examples.
        after_step: called after every optimizer step, e.g. to set masked weights back to zero.

    Returns:
        The mean loss over the last epoch's steps; NaN for 0 epochs.
    """
    device = next(model.parameters()).device
    inputs, labels = data.train_inputs.to(device), data.train_labels.to(device)
    steps = -(-len(labels) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs * steps, 1))
    generator = torch.Generator().manual_seed(seed)
    model.train()
    total = torch.full((), float("nan"))
    for _ in range(epochs):
        total = torch.zeros((), device=device)
        for chosen in torch.split(torch.randperm(len(labels), generator=generator).to(device), batch):
            loss = nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if after_step is not None:
                after_step()
            total += loss.detach()
    return float(total.item()) / steps


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor, *, batch: int = 4096) -> float:
    """Share of the examples whose largest output is their label; the model's training mode is restored."""
    if len(labels) == 0:
        raise ValueError("accuracy of no examples is undefined: give at least one")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        hits = sum(
            int((model(part.to(device)).argmax(-1) == truth.to(device)).sum().item())
            for part, truth in zip(torch.split(inputs, batch), torch.split(labels, batch), strict=True)
        )
    finally:
        model.train(was_training)
    return hits / len(labels)
