"""A sparsifier in a training loop that has loaded its checkpoint already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from bisparse.train.attaching import plain_name
from bisparse.train.sparsifier import Sparsifier

__all__ = ["attach_all", "figures"]

_SHOWN = ("flip_rate", "flip_rate_from_start", "kept_magnitude", "density")


def attach_all(
    sparsifier: Sparsifier,
    model: nn.Module,
    optimizers: Iterable[Any],
    state: Mapping[str, Any] | None = None,
) -> None:
    """Prepare a model and follow those optimizers that hold any of its sparse weights.

    Args:
        sparsifier: not yet prepared.
        model: at the start, or with the weights of the checkpoint that ``state`` belongs to.
        optimizers: all of the loop.
        state: of the sparsifier, from a checkpoint; ``None`` = a new run.

    Raises:
        ValueError: a weight is divided among processes (FSDP): its state cannot travel in the loop's checkpoints.
    """
    sparsifier.prepare(model)
    divided = [name for name, weight in sparsifier.weights.items() if weight.sharding is not None]
    if divided:
        raise ValueError(
            f"{divided[0]} is divided among processes: use the Sparsifier in a loop of your own, with "
            "torch.distributed.checkpoint, or DDP"
        )
    names = {name for name, _ in _parameters(model) if name in sparsifier.weights}
    own = {id(parameter) for name, parameter in _parameters(model) if name in names}
    for optimizer in optimizers:
        if any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
            sparsifier.attach(optimizer)
    if state is not None:
        # prepare chose masks of its own; what they hide goes back before the state's masks apply.
        with torch.no_grad():
            sparsifier.rule.reveal_([weight for weight in sparsifier.weights.values() if not weight.is_dense])
        sparsifier.load_state_dict(state)


def _parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [
        (plain_name(name), parameter) for name, parameter in model.named_parameters(remove_duplicate=False)
    ]


def figures(sparsifier: Sparsifier) -> dict[str, float]:
    """The last refresh in a few numbers, for a log."""
    history = sparsifier.history
    return (
        {f"bisparse/{name}": history[-1][name] for name in _SHOWN if name in history[-1]} if history else {}
    )
