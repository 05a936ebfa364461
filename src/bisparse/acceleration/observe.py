"""What really happens in a model: which layers are called, how often, and with how many tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.acceleration.candidates import Mode
from bisparse.compress.calibration import calibration_calls

__all__ = ["Run", "Use", "first_tensor", "observe", "runner", "undisturbed"]

Run = Callable[[nn.Module], Any]


@dataclass(slots=True)
class Use:
    """A layer at one number of tokens.

    Attributes:
        tokens: rows of its input.
        calls: how often.
        x: the first such input.
    """

    tokens: int
    calls: int
    x: Tensor


def runner(sample_input: Any, model: nn.Module, mode: Mode) -> Run:
    """A function that runs a model on the sample: forward, in training with the gradients of everything.

    Args:
        sample_input: a batch as for calibration (tensor, mapping, tuple), or a callable that is given the model.
        model: decides how a batch is passed.
        mode: what is run.
    """
    if callable(sample_input) and not isinstance(sample_input, (Tensor, Mapping, nn.Module)):
        run: Run = sample_input
    else:
        run = calibration_calls([sample_input], model)[0].run
    if mode == "inference":
        return run

    def train(trained: nn.Module) -> Any:
        with torch.enable_grad():
            output = run(trained)
            loss = output if isinstance(output, Tensor) else first_tensor(output)
            if loss.requires_grad:
                torch.autograd.backward(loss.float().sum())
        return output

    return train


def first_tensor(output: Any) -> Tensor:
    """The loss or the first floating-point tensor of what a model returns.

    Raises:
        TypeError: there is none.
    """
    if isinstance(output, Tensor):
        return output
    loss = getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        return loss
    items = (
        output.values()
        if isinstance(output, Mapping)
        else output
        if isinstance(output, (tuple, list))
        else ()
    )
    for item in items:
        if isinstance(item, Tensor) and item.is_floating_point():
            return item
    raise TypeError(
        f"the model returns {type(output).__name__} without a floating-point tensor: pass a callable"
    )


@contextmanager
def undisturbed(model: nn.Module, mode: Mode) -> Iterator[None]:
    """Run the model at will: its modes, buffers, gradients and the random state are as before afterwards."""
    training = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.clone() for buffer in model.buffers()} if mode == "training" else {}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    for parameter in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(), torch.set_grad_enabled(mode == "training"):
            model.train(mode == "training")
            yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def observe(model: nn.Module, layers: Mapping[str, nn.Module], run: Run) -> dict[str, list[Use]]:
    """Run the model once and note how each layer is called.

    Returns:
        Layer name to its uses, the most frequent first; an empty list where the layer was never called.
    """
    seen: dict[str, dict[int, Use]] = {name: {} for name in layers}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                x = args[0].detach()
                pixels = isinstance(
                    layer, nn.Conv2d
                )  # (images, channels, height, width): positions are tokens
                tokens = x.numel() // max(x.shape[-3 if pixels else -1], 1)
                use = seen[name].setdefault(tokens, Use(tokens, 0, x))
                use.calls += 1

        return note

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
    return {name: sorted(uses.values(), key=lambda use: -use.calls) for name, uses in seen.items()}
