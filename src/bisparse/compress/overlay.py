"""New values for parameters and buffers, worn only while the pruned network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Overlay"]


class Overlay:
    """Replaces the storage of tensors for a while; the model itself keeps its old values until
    :meth:`commit`.

    So whatever interrupts a compression, the user's model is never left half pruned. Swapping a storage
    pointer costs nothing and reaches every module that shares a tied weight.
    """

    def __init__(self) -> None:
        self._new: dict[Tensor, Tensor] = {}
        self._old: dict[Tensor, Tensor] = {}

    def put(self, tensor: Tensor, value: Tensor) -> None:
        """Set the new value of a parameter or buffer; takes effect at the next :meth:`enter`."""
        if tensor.shape != value.shape:
            raise ValueError(f"a {tuple(value.shape)} value cannot replace a {tuple(tensor.shape)} tensor")
        self._new[tensor] = value.to(device=tensor.device, dtype=tensor.dtype).contiguous()

    def enter(self) -> None:
        """Show the new values; may be interrupted, :meth:`leave` puts right what was done until then."""
        self._old = {tensor: tensor.data for tensor in self._new}
        for tensor, value in self._new.items():
            tensor.data = value

    def leave(self) -> None:
        """Show the old values."""
        for tensor, value in self._old.items():
            tensor.data = value
        self._old = {}

    @contextmanager
    def worn(self) -> Iterator[None]:
        """Show the new values inside a ``with`` block."""
        try:
            self.enter()
            yield
        finally:
            self.leave()

    def commit(self) -> None:
        """Copy all new values into the tensors for good.

        An interruption meanwhile takes effect behind the last copy: the model is never left half pruned.
        """
        try:
            self._copy()
        except BaseException:
            self._copy()
            raise

    @torch.no_grad()
    def _copy(self) -> None:
        for tensor, value in self._new.items():
            tensor.copy_(value)
