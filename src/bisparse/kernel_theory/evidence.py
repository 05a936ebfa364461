"""All that the theorems speak about, computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.kernel_theory.directional import directional
from bisparse.kernel_theory.features import LastLayer, features_of, find_last_layer
from bisparse.kernel_theory.gradient_kernel import kernel_of
from bisparse.kernel_theory.homogeneity import Homogeneity, probe_homogeneity
from bisparse.kernel_theory.network import Network
from bisparse.kernel_theory.spectrum import Spectrum, spectrum
from bisparse.kernel_theory.targets import as_targets, loss_and_residual

__all__ = ["Evidence", "Side", "gather"]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Some examples, training or held-out; kernels are against the training examples.

    Attributes:
        X: (n, ...).
        outputs: (n, C), the network's.
        K: (n C, N C) in full, else (n, N).
        features: (n, D); ``None`` where there is no last layer.
        along_gradient: (n, C), J g.
        targets: (n, C), where they are known.
    """

    X: Tensor
    outputs: Tensor
    K: Tensor
    features: Tensor | None
    along_gradient: Tensor
    targets: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A network at its training examples, and at held-out ones.

    Attributes:
        network: prepared.
        loss: ``"squared"`` or ``"cross_entropy"``.
        penalty: λ of λ/2 |θ|².
        full: whether K holds all pairs of outputs; otherwise it is their sum.
        train: the training examples.
        held_out: others, or ``None``.
        residual: (n, C), y - f or y - softmax(f).
        gradient: of the penalised loss, by parameter name.
        K: decomposed.
        H: decomposed, or ``None`` where there is no last layer.
        last: the last layer, or the reason why there is none.
        scaling: whether the network is homogeneous.
    """

    network: Network
    loss: str
    penalty: float
    full: bool
    train: Side
    held_out: Side | None
    residual: Tensor
    gradient: dict[str, Tensor]
    K: Spectrum
    H: Spectrum | None
    last: LastLayer | str
    scaling: Homogeneity

    @property
    def targets(self) -> Tensor:
        """(n, C)."""
        assert self.train.targets is not None
        return self.train.targets

    @property
    def count(self) -> int:
        """Training examples."""
        return len(self.train.outputs)

    @property
    def sides(self) -> tuple[Side, ...]:
        """Training examples, then held-out ones where there are any."""
        return (self.train,) if self.held_out is None else (self.train, self.held_out)

    def last_layer_gradient(self) -> Tensor:
        """(D, C): gradient by the last layer's weight, and by its bias in the last row."""
        assert isinstance(self.last, LastLayer)
        weight = self.gradient[f"{self.last.path}.weight".lstrip(".")].T
        if not self.last.bias:
            return weight
        return torch.cat([weight, self.gradient[f"{self.last.path}.bias".lstrip(".")][None]])


def gather(
    network: Network,
    X: Tensor,
    y: Tensor,
    held_out: tuple[Tensor, Tensor | None] | None,
    *,
    loss: str,
    penalty: float,
    full: bool,
    memory: int,
    rtol: float | None,
) -> Evidence:
    """Compute kernels, gradient and decompositions; cost that of the kernels and (n C)³."""
    gradient, residual = _gradient(network, X, y, loss, penalty)
    last = _last_layer(network, X)
    flaw = last if isinstance(last, str) else last.flaw
    outputs = "full" if full else "trace"
    train = _side(
        network, X, y, kernel_of(network, X, outputs=outputs, memory=memory), gradient, flaw, memory
    )
    other = None
    if held_out is not None:
        cross = kernel_of(network, held_out[0], X, outputs=outputs, memory=memory)
        other = _side(network, *held_out, cross, gradient, flaw, memory)
    features = train.features
    return Evidence(
        network=network,
        loss=loss,
        penalty=penalty,
        full=full,
        train=train,
        held_out=other,
        residual=residual,
        gradient=gradient,
        K=spectrum(train.K, rtol),
        H=None if features is None else spectrum(features @ features.T, rtol),
        last=last,
        scaling=probe_homogeneity(network, X),
    )


def _side(
    network: Network,
    X: Tensor,
    y: Tensor | None,
    K: Tensor,
    gradient: dict[str, Tensor],
    flaw: str,
    memory: int,
) -> Side:
    outputs = network.predict(X)
    targets = None if y is None else as_targets(y, outputs)
    features = None if flaw else features_of(network, X)
    return Side(X, outputs, K, features, directional(network, X, gradient, memory), targets)


def _last_layer(network: Network, X: Tensor) -> LastLayer | str:
    try:
        return find_last_layer(network, X)
    except ValueError as error:
        return str(error)


def _gradient(
    network: Network, X: Tensor, y: Tensor, loss: str, penalty: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Gradient of the penalised loss by the kept entries, and the residual; in batches."""
    total = {name: penalty * p.detach().clone() for name, p in network.parameters.items()}
    residuals = []
    values = list(network.parameters.values())
    inputs = network.inputs(X)
    for first in range(0, len(inputs), 256):
        with torch.enable_grad():
            outputs = network(inputs[first : first + 256])
            targets = as_targets(y[first : first + 256], outputs)
            value, residual = loss_and_residual(loss, outputs, targets)
        share = len(outputs) / len(inputs)
        grads = torch.autograd.grad(value * share, values, allow_unused=True)
        for name, grad in zip(total, grads, strict=True):
            if grad is not None:
                total[name] += grad
        residuals.append(residual.detach())
    return {name: network.masked(name, grad) for name, grad in total.items()}, torch.cat(residuals)
