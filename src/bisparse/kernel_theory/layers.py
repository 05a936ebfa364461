"""What known layers read, and the outputs' derivatives by what they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisparse.kernel_theory.network import Network
from bisparse.kernel_theory.norms import ScaleRows, is_known_norm, scale_rows

__all__ = ["LayerRows", "known_layers", "layer_rows", "true_layers"]


@dataclass(frozen=True, slots=True, eq=False)
class LayerRows:
    """What the Jacobian of a layer's weight is made of, for b examples and C outputs of the network.

    Attributes:
        inputs: (b, T, g, D), what each of T positions and g groups reads.
        deltas: (b, C, T, g, R), derivatives by what it writes.
    """

    inputs: Tensor
    deltas: Tensor

    def weight(self) -> Tensor:
        """(b, C, P): derivatives by the weight, entries in its own order."""
        return torch.einsum("btgd,bctgr->bcgrd", self.inputs, self.deltas).flatten(2)

    def bias(self) -> Tensor:
        """(b, C, O): derivatives by the bias."""
        return self.deltas.sum(2).flatten(2)


def known_layers(network: Network) -> dict[str, nn.Module]:
    """Linear, convolution and norm layers of which the network differentiates the weight or the bias."""
    return {
        path: module
        for path, module in network.module.named_modules()
        if _is_known(module)
        and ({f"{path}.weight".lstrip("."), f"{path}.bias".lstrip(".")} & network.parameters.keys())
    }


def _is_known(module: nn.Module) -> bool:
    if type(module) is nn.Linear or is_known_norm(module):
        return True
    return (
        isinstance(module, (nn.Conv1d, nn.Conv2d))
        and type(module) in (nn.Conv1d, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def layer_rows(
    network: Network, layers: Mapping[str, nn.Module], X: Tensor, outputs: Sequence[int]
) -> tuple[Tensor, dict[str, LayerRows | ScaleRows]]:
    """One forward pass and one backward pass per chosen output.

    Args:
        network: what is differentiated.
        layers: of :func:`known_layers`.
        X: (b, ...) inputs.
        outputs: the chosen outputs.

    Returns:
        The outputs (b, all), still differentiable, and the rows of every layer that was called with b examples;
        a layer that was called several times has the positions of all calls.
    """
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in layers}

    def keep(path: str) -> object:
        def hook(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:  # noqa: ARG001
            calls[path].append((given[0].detach(), result))
            return result.clone()  # what follows may change it in place

        return hook

    hooks = [module.register_forward_hook(keep(path)) for path, module in layers.items()]  # type: ignore[arg-type]
    try:
        with torch.enable_grad():
            result = network(X)
    finally:
        for handle in hooks:
            handle.remove()
    fitting = {
        path: pairs
        for path, pairs in calls.items()
        if pairs and all(_fits(layers[path], *p, len(X)) for p in pairs)
    }
    written = [out for pairs in fitting.values() for _, out in pairs]
    deltas = _deltas(result, written, outputs)
    rows: dict[str, LayerRows | ScaleRows] = {}
    for path, pairs in fitting.items():
        make = scale_rows if is_known_norm(layers[path]) else _positions
        calls_rows = [make(layers[path], read, deltas.pop(0)) for read, _ in pairs]
        inputs = torch.cat([piece.inputs for piece in calls_rows], 1)
        rows[path] = type(calls_rows[0])(inputs, torch.cat([piece.deltas for piece in calls_rows], 2))
    return result, rows


def _fits(module: nn.Module, read: Tensor, written: Tensor, examples: int) -> bool:
    """Whether the first dimension is that of the examples."""
    least = 4 if isinstance(module, nn.Conv2d) else 3 if isinstance(module, nn.Conv1d) else 2
    return read.dim() >= least and len(read) == len(written) == examples


def _deltas(result: Tensor, written: Sequence[Tensor], outputs: Sequence[int]) -> list[Tensor]:
    """For each written tensor (b, ...) the derivatives (b, C, ...) of the chosen outputs."""
    found: list[list[Tensor]] = [[] for _ in written]
    if not written:
        return []
    for output in outputs:
        grads = torch.autograd.grad(result[:, output].sum(), written, retain_graph=True, allow_unused=True)
        for store, grad, tensor in zip(found, grads, written, strict=True):
            store.append(torch.zeros_like(tensor) if grad is None else grad)
    return [torch.stack(store, 1) for store in found]


def _positions(module: nn.Module, read: Tensor, deltas: Tensor) -> LayerRows:
    if isinstance(module, nn.Linear):
        examples, outputs = deltas.shape[:2]
        inputs = read.reshape(examples, -1, 1, read.shape[-1])
        return LayerRows(inputs, deltas.reshape(examples, outputs, -1, 1, deltas.shape[-1]))
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    assert not isinstance(module.padding, str)
    if isinstance(module, nn.Conv1d):
        read, deltas = read.unsqueeze(2), deltas.unsqueeze(3)
    pad = (0, *module.padding)[-2:]
    columns = F.unfold(
        read,
        (1, *module.kernel_size)[-2:],
        dilation=(1, *module.dilation)[-2:],
        padding=pad,
        stride=(1, *module.stride)[-2:],
    )  # (b, I * kernel, T)
    examples, outputs, groups = *deltas.shape[:2], module.groups
    inputs = columns.reshape(examples, groups, -1, columns.shape[-1]).permute(0, 3, 1, 2)
    written = deltas.reshape(examples, outputs, groups, -1, columns.shape[-1])
    return LayerRows(inputs, written.permute(0, 1, 4, 2, 3))


def true_layers(network: Network, result: Tensor, rows: Mapping[str, LayerRows | ScaleRows]) -> set[str]:
    """Layers whose summed rows equal the gradient that automatic differentiation finds.

    A weight that is used twice, or other than by calling its layer, fails this test.

    Args:
        network: what is differentiated.
        result: the chosen outputs, of :func:`layer_rows`.
        rows: what it returned with them.
    """
    names = [n for path in rows for n in _own(network, path)]
    if not names:
        return set()
    values = [network.parameters[name] for name in names]
    grads = torch.autograd.grad(result.sum(), values, allow_unused=True)
    truth = dict(zip(names, grads, strict=True))
    return {path for path in rows if all(_equal(rows[path], n, truth[n]) for n in _own(network, path))}


def _own(network: Network, path: str) -> list[str]:
    names = (f"{path}.weight".lstrip("."), f"{path}.bias".lstrip("."))
    return [name for name in names if name in network.parameters]


def _equal(rows: LayerRows | ScaleRows, name: str, truth: Tensor | None) -> bool:
    summed = (rows.weight() if name.endswith("weight") else rows.bias()).sum((0, 1))
    other = torch.zeros_like(summed) if truth is None else truth.flatten()
    error = float((summed - other).norm())
    return error <= 1e4 * torch.finfo(summed.dtype).eps * (float(other.norm()) + 1e-30)
