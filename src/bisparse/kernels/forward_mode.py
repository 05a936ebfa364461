"""Forward-mode derivatives, which the operators of this library have not: refused, where PyTorch would give zeros."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.autograd import forward_ad

__all__ = ["refuse_forward_mode"]


def refuse_forward_mode(layer: str, dense: str, *tensors: Tensor | None) -> None:
    """Refuse forward-mode derivatives, which operators registered here have not and PyTorch would take for zero.

    Args:
        layer: what is called.
        dense: how to get a dense one, which has them.
        tensors: all that a derivative could be taken with respect to.

    Raises:
        NotImplementedError: one of them carries a tangent, of the innermost ``jvp`` or of one around it.
    """
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(_has_tangent(tensor) for tensor in tensors if tensor is not None):
        raise NotImplementedError(
            f"{layer} has no forward-mode derivative (jvp, jacfwd): use reverse mode (backward, torch.autograd.grad, "
            f"torch.autograd.functional.jvp), or a dense model, {dense}"
        )


def _has_tangent(tensor: Tensor) -> bool:
    """At any level: inside a transform of ``torch.func``, what belongs to the transforms around it is out of sight."""
    inner = _functorch.maybe_get_level(tensor) == _functorch.maybe_current_level()
    batched = inner and _functorch.is_batchedtensor(tensor)  # has no tangent of its own
    if not batched and forward_ad.unpack_dual(tensor).tangent is not None:  # type: ignore[no-untyped-call]
        return True
    if not _functorch.is_functorch_wrapped_tensor(tensor):
        return False
    with temporarily_pop_interpreter_stack():
        return _has_tangent(_functorch.get_unwrapped(tensor) if inner else tensor)
