"""Residual connections: a layer whose output is added to another tensor can make good that tensor's error
too.

In ``x + f(x)`` the pruned network's x already carries the errors of earlier layers. The last layer of f
therefore aims not at its own dense output, but at the dense sum minus the pruned network's x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bisparse.compress.batch_norm import BatchNorm
from bisparse.compress.streams import Spot

__all__ = ["Residual", "find_residuals"]

_ADDITIONS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
_TRANSPARENT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity)


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """What a module's output is added to.

    Attributes:
        spot: where that tensor passes by before the module is called: some module's first input, or output.
        norm: the batch norm between the module and the addition, or ``None``.
    """

    spot: Spot
    norm: BatchNorm | None

    def correction(self, dense: Tensor, pruned: Tensor) -> Tensor:
        """What must be added to the module's dense output so that the sum comes out as in the dense network.

        Through a batch norm of slope a per channel the difference is divided by a, softened where a is small:
        a / (a² + (mean |a| / 10)²), since channels that hardly reach the sum cannot mend it.
        """
        difference = dense - pruned
        if self.norm is None:
            return difference
        assert self.norm.running_var is not None
        slope = (self.norm.running_var + self.norm.eps).rsqrt()
        slope = slope * self.norm.weight.detach() if self.norm.affine else slope
        inverse = slope / (slope.square() + (0.1 * slope.abs().mean()).square())
        return difference * inverse.reshape(-1, *([1] * (difference.dim() - 2)))


class _Tracer(TorchFunctionMode):
    """Follows the outputs of some modules to the additions that they enter."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.modules = frozenset(modules)
        self.found: dict[nn.Module, Residual] = {}
        self._latest: dict[Spot, int] = {}
        self._passed: dict[nn.Module, dict[int, Spot]] = {}
        self._made: dict[int, tuple[nn.Module, BatchNorm | None]] = {}
        self._alive: list[Tensor] = []  # so that no id is used twice

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Pre-hook of every module."""
        if args and isinstance(args[0], Tensor):
            self._see(Spot(module, "input"), args[0])
        if module in self.modules:
            self._passed[module] = {number: spot for spot, number in self._latest.items()}

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Hook of every module."""
        result = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(result, Tensor):
            return
        origin = self._made.get(id(args[0])) if args else None
        self._see(Spot(module, "output"), result)
        if module in self.modules:
            self._made[id(result)] = (module, None)
        elif origin is not None and isinstance(module, BatchNorm) and origin[1] is None:
            self._made[id(result)] = (origin[0], module)
        elif origin is not None and isinstance(module, _TRANSPARENT):
            self._made[id(result)] = origin

    def _see(self, spot: Spot, tensor: Tensor) -> None:
        self._latest[spot] = id(tensor)
        self._alive.append(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in _ADDITIONS and len(args) == 2 and not kwargs:
            self._added(args[0], args[1])
            self._added(args[1], args[0])
        return func(*args, **(kwargs or {}))

    def _added(self, output: Any, other: Any) -> None:
        made = self._made.get(id(output))
        if made is None or not isinstance(other, Tensor) or other.shape != output.shape:
            return
        module, norm = made
        spot = self._passed[module].get(id(other))
        if spot is not None:
            self.found[module] = Residual(spot, norm)


@torch.no_grad()
def find_residuals(
    model: nn.Module, run: Callable[[], Any], modules: Iterable[nn.Module]
) -> dict[nn.Module, Residual]:
    """Run the model once and note which modules' outputs are added to a tensor that was there before.

    Only sums written as ``+`` or ``add`` of whole outputs count, directly or through one batch norm and
    dropout; the other summand must have been some module's first input or output. What is not recognised is
    simply not used.

    Args:
        model: the model.
        run: calls it.
        modules: whose outputs to follow.
    """
    tracer = _Tracer(modules)
    handles = [module.register_forward_pre_hook(tracer.before) for module in model.modules()]
    handles += [module.register_forward_hook(tracer.after) for module in model.modules()]
    try:
        with tracer:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return tracer.found
