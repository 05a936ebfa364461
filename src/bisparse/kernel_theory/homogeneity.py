"""Is the network positively homogeneous in its parameters, and of which degree?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bisparse.kernel_theory.network import Network, prepare
from bisparse.weights.select import Selectors

__all__ = ["Homogeneity", "homogeneity", "probe_homogeneity"]

_SCALES = (0.5, 0.8, 1.25, 2.0)
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ACTIVATIONS = (
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.Softplus,
    nn.Hardswish,
    nn.Mish,
    nn.SELU,
    nn.Softmax,
)


@dataclass(frozen=True, slots=True)
class Homogeneity:
    """What the probe found.

    Attributes:
        degree: L with f(c θ) = c^L f(θ) for every c > 0 tried; ``None`` where there is none.
        deviation: largest relative deviation from a power of c.
        reason: why there is none; empty where there is.
    """

    degree: float | None
    deviation: float
    reason: str = ""


def homogeneity(
    model: nn.Module, X: Tensor, *, params: Selectors | None = None, dtype: torch.dtype | None = torch.float64
) -> Homogeneity:
    """Probe f(c θ) / f(θ) at several c > 0.

    A network of L bias-free Linear layers and ReLU has degree L; ReLU² between two layers degree 3. Biases (other
    than in the first layer) and norms break it.

    Args:
        model: any module; evaluated in evaluation mode, left as it is.
        X: (n, ...) inputs, some of them with outputs that are not zero.
        params: the parameters that are scaled; ``None`` = all that require a gradient.
        dtype: of the computation; ``None`` = the model's.
    """
    return probe_homogeneity(prepare(model, X, params=params, dtype=dtype), X)


@torch.no_grad()
def probe_homogeneity(network: Network, X: Tensor) -> Homogeneity:
    """The same for a prepared network."""
    X, values = network.inputs(X), network.values()
    start = network(X, values)
    size = float(start.norm())
    if not size > 0:
        return Homogeneity(None, math.nan, "all outputs are zero here, which says nothing about scaling")
    degrees, deviation = [], 0.0
    for scale in _SCALES:
        scaled = network(X, {name: scale * value for name, value in values.items()})
        ratio = float((scaled * start).sum()) / size**2
        deviation = max(deviation, float((scaled - ratio * start).norm()) / max(float(scaled.norm()), 1e-300))
        degrees.append(math.log(ratio) / math.log(scale) if ratio > 0 else math.nan)
    mean = sum(degrees) / len(degrees)
    spread = max((abs(degree - mean) for degree in degrees), default=math.nan)
    tolerance = 1e4 * torch.finfo(start.dtype).eps
    if not (spread <= tolerance and deviation <= tolerance and mean > 0.5 * tolerance):
        return Homogeneity(None, max(deviation, spread), _reason(network))
    return Homogeneity(round(mean) if abs(mean - round(mean)) < tolerance else mean, deviation)


def _reason(network: Network) -> str:
    """Name what is likely to break homogeneity."""
    modules = list(network.module.named_modules())
    norms = [name for name, module in modules if isinstance(module, _NORMS)]
    biases = [name for name in network.parameters if name.endswith("bias")]
    kinds = sorted({type(module).__name__ for _, module in modules if isinstance(module, _ACTIVATIONS)})
    causes = [f"norm layers ({_some(norms)})"] if norms else []
    causes += [f"biases ({_some(biases)})"] if biases else []
    causes += [f"activations that are not homogeneous ({_some(kinds)})"] if kinds else []
    because = (
        "it has " + " and ".join(causes) if causes else "its function does not scale with a power of them"
    )
    return f"the network is not homogeneous in its parameters: {because}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
