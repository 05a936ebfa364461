"""The Jacobian of a network's outputs by its parameters, row block by row block, in the cheapest true form."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from bisparse.kernel_theory.factors import Dense, Factor, Outer
from bisparse.kernel_theory.layers import LayerRows, known_layers, layer_rows, true_layers
from bisparse.kernel_theory.network import Network, Outputs
from bisparse.kernel_theory.norms import ScaleRows

__all__ = [
    "DEFAULT_MEMORY",
    "Jacobian",
    "Method",
    "chosen_outputs",
    "column_squares",
    "plan_jacobian",
]

Method: TypeAlias = Literal["auto", "generic"]
DEFAULT_MEMORY = 2**29
_MOST_OUTPUTS = 4096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Jacobian:
    """How each parameter's part is computed.

    Attributes:
        network: what is differentiated.
        outputs: the chosen outputs.
        layers: paths of Linear, convolution and norm layers that are taken from their inputs and output derivatives.
        outer: those of them whose weight's part is kept as an outer product.
        generic: names of the parameters that ``torch.func`` differentiates by.
        row_bytes: memory of one example's part.
    """

    network: Network
    outputs: tuple[int, ...]
    layers: tuple[str, ...]
    outer: frozenset[str]
    generic: tuple[str, ...]
    row_bytes: int

    def rows(self, X: Tensor) -> dict[str, Factor]:
        """Parameter name to its part for these examples; masked entries are left out."""
        network, factors = self.network, dict[str, Factor]()
        if self.layers:
            modules = {path: network.module.get_submodule(path) for path in self.layers}
            rows = layer_rows(network, modules, X, self.outputs)[1]
            for path in self.layers:
                factors |= self._layer(path, rows[path])
        for name, values in _generic_rows(network, self.generic, X, self.outputs).items():
            factors[name] = Dense(self.kept(name, values))
        return factors

    def blocks(self, X: Tensor, memory: int, parts: int = 1) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the examples, ``parts`` of which fit into the memory at once.

        Raises:
            ValueError: not even one example each fits; names the bytes that are needed.
        """
        most = memory // (parts * self.row_bytes)
        if most < 1:
            raise ValueError(
                f"one example's derivatives take {self.row_bytes:,} bytes, and {parts} of them more than "
                f"memory={memory:,}: raise it, or choose fewer outputs or parameters"
            )
        for first in range(0, len(X), most):
            yield slice(first, min(first + most, len(X))), X[first : first + most]

    def _layer(self, path: str, rows: LayerRows | ScaleRows) -> dict[str, Factor]:
        weight, bias = f"{path}.weight".lstrip("."), f"{path}.bias".lstrip(".")
        found: dict[str, Factor] = {}
        if path in self.outer and isinstance(rows, LayerRows):
            found[weight] = Outer(rows.inputs[:, :, 0], rows.deltas[:, :, :, 0])
        elif weight in self.network.parameters:
            found[weight] = Dense(self.kept(weight, rows.weight()))
        if bias in self.network.parameters:
            found[bias] = Dense(self.kept(bias, rows.bias()))
        return found

    def kept(self, name: str, values: Tensor) -> Tensor:
        """(b, C, P) with the columns of a parameter's kept entries only."""
        mask = self.network.masks.get(name)
        return values if mask is None else values[:, :, mask.flatten()]


def chosen_outputs(outputs: Outputs, count: int) -> tuple[tuple[int, ...], bool]:
    """The chosen outputs, and whether the kernel is summed over them.

    Args:
        outputs: ``"trace"`` = the sum over all outputs, ``"full"`` = all pairs, a number = one, numbers = their
            pairs.
        count: outputs that the network has.

    Raises:
        ValueError: another word, or a number that is no output.
    """
    if isinstance(outputs, str):
        if outputs not in ("trace", "full"):
            raise ValueError(f"outputs={outputs!r}: use 'trace', 'full', a number or several numbers")
        return tuple(range(count)), outputs == "trace"
    numbers = (outputs,) if isinstance(outputs, int) else tuple(outputs)
    if not numbers or any(not -count <= number < count for number in numbers):
        raise ValueError(f"outputs={outputs!r}: the network has outputs 0 to {count - 1}")
    return tuple(number % count for number in numbers), len(numbers) == 1


def plan_jacobian(
    network: Network, X: Tensor, outputs: Outputs, method: Method = "auto"
) -> tuple[Jacobian, bool]:
    """Choose a form for every parameter, by trying two examples.

    A weight is kept as an outer product where that takes less memory and not much more work; layers are trusted
    only if the sum of their rows equals the gradient of automatic differentiation.

    Returns:
        The plan, and whether kernels are to be summed over outputs.

    Raises:
        ValueError: an unknown method or output.
    """
    if method not in ("auto", "generic"):
        raise ValueError(f"method={method!r}: use 'auto' or 'generic'")
    probe = network.inputs(X[:2])
    with torch.no_grad():
        count = network(probe).shape[1]
    numbers, trace = chosen_outputs(outputs, count)
    if len(numbers) > _MOST_OUTPUTS:
        raise ValueError(
            f"{len(numbers)} outputs need as many backward passes: take at most {_MOST_OUTPUTS} (outputs=[...])"
        )
    known = known_layers(network) if method == "auto" else {}
    result, rows = layer_rows(network, known, probe, numbers) if known else (probe, {})
    trusted = tuple(sorted(true_layers(network, result[:, list(numbers)], rows))) if known else ()
    sizes = {path: _weight_size(network, path, rows[path], len(numbers)) for path in trusted}
    covered = {f"{path}.{kind}".lstrip(".") for path in trusted for kind in ("weight", "bias")}
    generic = tuple(name for name in network.parameters if name not in covered)
    if generic and method == "auto":
        _log.info("torch.func differentiates by %d of %d parameters", len(generic), len(network.parameters))
    rest = sum(network.parameters[n].numel() for n in (*generic, *_biases(network, trusted)))
    numbers_per_row = sum(size for _, size in sizes.values()) + len(numbers) * rest
    row_bytes = max(1, numbers_per_row * network.reference.element_size())
    outer = frozenset(path for path, (is_outer, _) in sizes.items() if is_outer)
    return Jacobian(network, numbers, trusted, outer, generic, row_bytes), trace


def _biases(network: Network, layers: Sequence[str]) -> list[str]:
    names = [f"{path}.bias".lstrip(".") for path in layers]
    return [name for name in names if name in network.parameters]


def _weight_size(network: Network, path: str, rows: LayerRows | ScaleRows, outputs: int) -> tuple[bool, int]:
    """Whether the weight's part is kept as an outer product, and the numbers that one example takes."""
    name = f"{path}.weight".lstrip(".")
    if name not in network.parameters:
        return False, 0
    if isinstance(rows, ScaleRows):
        return False, rows.inputs[0].numel() * (1 + outputs) + outputs * rows.inputs.shape[2]
    _, positions, groups, columns = rows.inputs.shape
    features = rows.deltas.shape[4]
    dense = outputs * groups * features * columns
    small = positions * groups * (columns + outputs * features)
    outer = (
        groups == 1
        and name not in network.masks
        and small < dense
        and positions**2 * (columns + outputs * features) <= 4 * dense
    )
    return outer, small if outer else dense + small


def _generic_rows(
    network: Network, names: Sequence[str], X: Tensor, outputs: Sequence[int]
) -> dict[str, Tensor]:
    """(b, C, P) by parameter name, by ``torch.func``; example by example where it cannot vectorise the model."""
    if not names:
        return {}
    values = {name: network.parameters[name].detach() for name in names}
    index = torch.tensor(outputs, device=X.device)

    def one(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return network(x[None], parameters)[0][index]

    try:
        found = vmap(jacrev(one), in_dims=(None, 0))(values, X)
    except (RuntimeError, NotImplementedError) as error:
        if "out of memory" in str(error):
            raise
        _log.info("not vectorised (%s): derivatives one by one", str(error).splitlines()[0])
        found = _loop_rows(network, names, X, outputs)
    return {name: found[name].detach().flatten(2) for name in names}


def _loop_rows(
    network: Network, names: Sequence[str], X: Tensor, outputs: Sequence[int]
) -> dict[str, Tensor]:
    parameters = [network.parameters[name] for name in names]
    rows: list[list[Tensor]] = [[] for _ in names]
    for x in X:
        with torch.enable_grad():
            result = network(x[None])[0]
        for output in outputs:
            grads = torch.autograd.grad(result[output], parameters, retain_graph=True, allow_unused=True)
            for store, grad, parameter in zip(rows, grads, parameters, strict=True):
                store.append(torch.zeros_like(parameter) if grad is None else grad)
    shape = (len(X), len(outputs))
    return {
        name: torch.stack(store).reshape(*shape, *store[0].shape)
        for name, store in zip(names, rows, strict=True)
    }


def column_squares(network: Network, X: Tensor, outputs: Outputs, memory: int) -> dict[str, Tensor]:
    """Parameter name to |J_i|² of its entries, summed over the chosen outputs; the network has no masks.

    All of them together sum to the trace of the gradient kernel.
    """
    plan, _ = plan_jacobian(network, X, outputs)
    total = {name: torch.zeros_like(p) for name, p in network.parameters.items()}
    for _, part in plan.blocks(network.inputs(X), memory):
        for name, factor in plan.rows(part).items():
            total[name] += factor.column_squares().reshape(total[name].shape)
    return total
