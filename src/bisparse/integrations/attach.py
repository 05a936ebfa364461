"""A sparsifier in a training loop that has loaded its checkpoint already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

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
    own = {id(weight.parameter) for weight in sparsifier.weights.values()}
    for optimizer in optimizers:
        if any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
            sparsifier.attach(optimizer)
    if state is not None:
        sparsifier.load_state_dict(state)


def figures(sparsifier: Sparsifier) -> dict[str, float]:
    """The last refresh in a few numbers, for a log."""
    history = sparsifier.history
    return (
        {f"bisparse/{name}": history[-1][name] for name in _SHOWN if name in history[-1]} if history else {}
    )
