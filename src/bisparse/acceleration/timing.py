"""Times of one layer, dense and sparse, with weights that come from where they come from in the whole model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from bisparse.acceleration.candidates import Mode

__all__ = ["Cold", "LayerTimes", "last_level_cache", "layer_call", "time_calls", "time_layer"]

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
_LOW_PRECISION = 3e-2


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """A layer at one number of tokens.

    Attributes:
        seconds: name to the median of one call; ``"dense"`` and the candidates.
        differences: candidate to the relative distance of its output (and gradients) from the dense ones.
    """

    seconds: Mapping[str, float]
    differences: Mapping[str, float]

    def agrees(self, name: str, dtype: torch.dtype) -> bool:
        """Whether a candidate computes the same up to rounding."""
        return self.differences[name] <= _TOLERANCE.get(dtype, _LOW_PRECISION)


def last_level_cache() -> int:
    """Bytes of the largest cache of the processor; 64 MB where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return max(sizes, default=64 << 20)


class Cold:
    """Drives a layer's weights out of the caches, as far as the rest of the model would.

    Between two calls of a layer the model reads all its other weights; so does this, up to twice the largest cache. A
    model that stays in the cache as a whole is timed in the cache.

    Args:
        nbytes: what is read between two calls of a layer.
    """

    def __init__(self, nbytes: int) -> None:
        size = min(max(nbytes, 0), 2 * last_level_cache())
        self._memory = torch.zeros(size // 4)

    def __call__(self) -> None:
        """Read as much as the rest of the model would."""
        if self._memory.numel():
            self._memory.sum()


def _settled(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_calls(
    calls: Mapping[str, Callable[[], object]],
    *,
    before: Callable[[], None],
    device: torch.device,
    repeats: int = 11,
    seconds: float = 3.0,
) -> dict[str, float]:
    """Median seconds of each call, in turn, one call per sample, forwards and backwards.

    Args:
        calls: what to time, by name; each runs twice to warm up.
        before: called before every sample, untimed.
        device: waited for before and after.
        repeats: samples per call.
        seconds: after this much time no new round begins, but three always run.
    """
    for call in [*calls.values(), *calls.values()]:
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for repeat in range(repeats):
        if repeat >= 3 and time.perf_counter() - begin > seconds:
            break
        for name in list(calls) if repeat % 2 else list(calls)[::-1]:
            before()
            _settled(device)
            start = time.perf_counter()
            calls[name]()
            _settled(device)
            samples[name].append(time.perf_counter() - start)
    return {name: median(found) for name, found in samples.items()}


def layer_call(layer: nn.Module, x: Tensor, mode: Mode) -> Callable[[], list[Tensor]]:
    """One call of a layer: forward, and backward with all gradients in training; gives what can be compared."""
    if mode == "inference":

        def forward() -> list[Tensor]:
            with torch.no_grad():
                return [layer(x)]

        return forward
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def both() -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            y = layer(leaf)
            gradients = torch.autograd.grad(y, [leaf, *parameters], torch.ones_like(y))
        return [y.detach(), gradients[0]]

    return both


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest relative distance of two lists of tensors."""
    distances = []
    for one, other in zip(ours, theirs, strict=True):
        scale = float(other.float().norm())
        distances.append(float((one.float() - other.float()).norm()) / max(scale, 1e-30))
    return max(distances)


def time_layer(
    dense: nn.Module,
    candidates: Mapping[str, nn.Module],
    x: Tensor,
    *,
    mode: Mode = "inference",
    cold: Cold | None = None,
    repeats: int = 11,
    seconds: float = 3.0,
) -> LayerTimes:
    """Time a layer against others that compute the same, interleaved, and compare what they compute.

    Args:
        dense: the layer as it is.
        candidates: name to layer.
        x: its input.
        mode: forward, or forward and backward.
        cold: drives weights out of the caches before each sample; ``None``: they stay where they are.
        repeats: samples of each.
        seconds: time limit.

    Returns:
        Medians, and differences.
    """
    calls = {name: layer_call(layer, x, mode) for name, layer in {"dense": dense, **candidates}.items()}
    expected = calls["dense"]()
    differences = {name: _difference(calls[name](), expected) for name in candidates}
    times = time_calls(
        calls, before=cold or (lambda: None), device=x.device, repeats=repeats, seconds=seconds
    )
    return LayerTimes(times, differences)
