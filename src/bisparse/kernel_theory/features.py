"""The feature kernel H: Gram matrix of what the last layer reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bisparse.kernel_theory.masked import Masks
from bisparse.kernel_theory.network import Network, prepare

__all__ = ["LastLayer", "feature_kernel", "features_of", "find_last_layer"]


@dataclass(frozen=True, slots=True)
class LastLayer:
    """The Linear layer whose outputs are the network's.

    Attributes:
        path: its dotted name.
        bias: whether its bias is among the parameters; the features then have a column of ones.
        flaw: why the theorems about the last layer do not apply; empty where they do.
    """

    path: str
    bias: bool
    flaw: str = ""


def find_last_layer(network: Network, X: Tensor) -> LastLayer:
    """The last Linear layer that is called.

    Raises:
        ValueError: there is none; names the remedy.
    """
    calls: list[tuple[str, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda _, given, out, path=path: calls.append((path, given[0], out)))
        for path, module in network.module.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            result = network(network.inputs(X[:2]))
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        raise ValueError("the model has no Linear layer, so it has no last features: name a layer")
    path, read, written = calls[-1]
    return LastLayer(
        path, f"{path}.bias".lstrip(".") in network.parameters, _flaw(network, calls, read, written, result)
    )


def _flaw(
    network: Network, calls: list[tuple[str, Tensor, Tensor]], read: Tensor, written: Tensor, result: Tensor
) -> str:
    path = calls[-1][0]
    weight = f"{path}.weight".lstrip(".")
    if weight not in network.parameters:
        return f"the last layer's {weight} is frozen, shared or re-parametrised"
    if sum(name == path for name, _, _ in calls) > 1:
        return f"the last layer {path!r} is called more than once"
    if read.dim() != 2 or written.shape != result.shape or not torch.equal(written, result):
        return f"the outputs are not those of a last Linear layer ({path!r} is the last that is called)"
    if weight in network.masks and not bool(network.masks[weight].all()):
        return f"the last layer {path!r} is masked, so every output reads other features"
    bias = dict(network.module.named_parameters()).get(f"{path}.bias".lstrip("."))
    if bias is not None and f"{path}.bias".lstrip(".") not in network.parameters and bool(bias.any()):
        return f"the last layer {path!r} has a bias that is not trained"
    return ""


@torch.no_grad()
def features_of(
    network: Network, X: Tensor, layer: str | None = None, *, bias: bool | None = None, batch: int = 512
) -> Tensor:
    """What a layer reads: (n, D), with a column of ones where its bias counts.

    Args:
        network: prepared.
        X: (n, ...) inputs.
        layer: dotted name of the module whose input is taken; ``None`` = the last Linear layer.
        bias: whether to append ones; ``None`` = as the layer's bias is a parameter.
        batch: rows at a time.

    Raises:
        ValueError: no such layer, or it is never called.
    """
    last = find_last_layer(network, X) if layer is None else None
    path = layer if last is None else last.path
    modules = dict(network.module.named_modules())
    if path not in modules:
        raise ValueError(
            f"layer={layer!r} is no module of the model; it has {', '.join(list(modules)[1:6])} ..."
        )
    found: list[Tensor] = []
    read: list[Tensor] = []
    handle = modules[path].register_forward_pre_hook(lambda _, given: read.append(given[0].detach().clone()))
    try:
        for part in torch.split(network.inputs(X), batch):
            read.clear()
            network(part)
            if not read or len(read[-1]) != len(part):
                raise ValueError(f"layer={path!r} is not called once with one row per example: name another")
            found.append(read[-1].flatten(1))
    finally:
        handle.remove()
    features = torch.cat(found)
    append = f"{path}.bias".lstrip(".") in network.parameters if bias is None else bias
    return torch.cat([features, features.new_ones(len(features), 1)], 1) if append else features


def feature_kernel(
    model: nn.Module,
    X: Tensor,
    Z: Tensor | None = None,
    *,
    layer: str | None = None,
    masks: Masks = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """H(x, z) = φ(x)·φ(z), φ = what the last layer reads (and 1 for its bias).

    It is the gradient kernel of the last layer alone, the same for every output. The network's outputs lie in its
    range; training the last layer to the end projects the targets onto it.

    Args:
        model: any module; copied, put into evaluation mode, and left as it is.
        X: (n, ...) inputs.
        Z: (m, ...) inputs of the columns; ``None`` = X.
        layer: dotted name of the module whose input counts; ``None`` = the last Linear layer that is called.
        masks: see :func:`gradient_kernel`.
        dtype: of the computation; ``None`` = the model's.

    Returns:
        (n, m).

    Raises:
        ValueError: no such layer, or what ``prepare`` refuses.

    Cost: one forward pass, n m D. Source: Dou and Liang 2020, the kernel H_t.
    """
    network = prepare(model, X, masks=masks, dtype=dtype)
    left = features_of(network, X, layer)
    return left @ (left if Z is None else features_of(network, Z, layer)).T
