"""What a layer's gradient is made of: its inputs, and the gradients of its outputs."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bisparse.nn.sparse_linear import SparseLinear

__all__ = ["GradientRecorder"]


class GradientRecorder:
    """Keeps, for forward and backward passes inside its ``with``, what gradients of absent connections need.

    The gradient of a connection that does not exist is the sum over the batch of (gradient of its output) times (its
    input). Use it around the pass before a topology step, not around all of training: it holds on to the activations.

    Args:
        layers: to watch.
    """

    def __init__(self, layers: Iterable[SparseLinear]) -> None:
        self._layers = list(layers)
        self._handles: list[RemovableHandle] = []
        self._pairs: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def __enter__(self) -> GradientRecorder:
        self._pairs = {layer: [] for layer in self._layers}
        self._handles = [layer.register_forward_hook(self._watch, with_kwargs=True) for layer in self._layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _watch(
        self, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor
    ) -> None:
        if output.requires_grad:
            x, pairs = (inputs[0] if inputs else named["input"]).detach(), self._pairs[layer]
            output.register_hook(lambda grad: pairs.append((x, grad.detach())))  # type: ignore[no-untyped-call]

    def of(self, layer: SparseLinear) -> tuple[Tensor, Tensor]:
        """Inputs (batch, in_features) and gradients of outputs (batch, out_features), in the dtype of the values.

        Raises:
            ValueError: nothing was recorded.
        """
        pairs = self._pairs.get(layer, [])
        if not pairs:
            raise ValueError(
                "no backward pass through this layer was recorded: run one inside the recorder's `with`"
            )
        dtype = layer.values.dtype
        x = torch.cat([x.reshape(-1, layer.in_features).to(dtype) for x, _ in pairs])
        grad = torch.cat([grad.reshape(-1, layer.out_features).to(dtype) for _, grad in pairs])
        return x, grad
