"""A linear layer that is sparse from the start: memory and time follow the connections that exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.kernels.forward_mode import refuse_forward_mode
from bisparse.kernels.sparse_index import SparseIndex, check_rows, row_starts
from bisparse.kernels.sparse_operators import sparse_linear_op
from bisparse.kernels.sparse_sampling import sample_distinct
from bisparse.nn.sparse_init import Init, fresh_values, layer_generator

__all__ = ["SparseLinear"]

MOST_DENSE_ENTRIES = 2**28


class SparseLinear(nn.Module):
    """``y = x W^T + b`` for a W of which only the non-zeros exist.

    The connections are drawn at random, exactly so many, without ever making a dense tensor (Erdos-Renyi, as in
    Mocanu et al. 2018). ``values`` is an ordinary parameter of ``nnz`` numbers: any optimizer trains it, with state of
    the same size. Gradients of input, values and bias are computed without a dense gradient. Which connections exist
    can be changed while training: :mod:`bisparse.nn.sparse_topology`.

    Memory: 4 bytes per connection for its value (float32) and 12 for its place, by rows and by columns; 4 for the
    gradient and 4 for each state of the optimizer. Time: proportional to ``nnz`` times the batch, plus the activations.
    ``state_dict`` holds ``values``, ``crow``, ``col`` and ``bias``; it may be loaded into a layer of the same shape
    with any other connections.

    Args:
        in_features: columns of W.
        out_features: its rows.
        bias: whether there is one; it starts at zero.
        density: share of connections that exist, 0 to 1; or
        epsilon: ``epsilon * (in_features + out_features)`` connections; at most all.
        seed: of connections (the same on every machine) and values. Layers of one shape and seed are equal.
        init: how values start; see :func:`bisparse.nn.sparse_init.fresh_values`.
        device: of all parts.
        dtype: float32, bfloat16 or float64.

    Raises:
        ValueError: not exactly one of ``density`` and ``epsilon``, a value out of range, or sizes of 2^31 and more.
    """

    values: nn.Parameter
    bias: nn.Parameter | None
    crow: Tensor
    col: Tensor
    ccol: Tensor
    row_t: Tensor
    perm: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        density: float | None = None,
        epsilon: float | None = None,
        seed: int = 0,
        init: Init = "kaiming_uniform",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shape = out_features, in_features
        nnz = connections(shape, density, epsilon)
        generator = layer_generator(seed, shape)
        keys = sample_distinct(nnz, out_features * in_features, generator)
        index = SparseIndex.from_keys(keys, shape)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        values = fresh_values(init, nnz, shape, nnz, dtype, generator)
        self._build(
            index, values, torch.zeros(out_features, dtype=dtype, device="cpu") if bias else None, init
        )
        self.to(torch.get_default_device() if device is None else device)

    @classmethod
    def from_linear(cls, linear: nn.Linear, mask: Tensor | None = None) -> SparseLinear:
        """The kept weights of a dense layer.

        Args:
            linear: is not changed.
            mask: (out_features, in_features), True = kept, zeros included; without it, the non-zero weights are.

        Returns:
            A layer with its own memory that computes the same function.

        Raises:
            TypeError: not a plain ``nn.Linear``.
            ValueError: a mask of another shape.
        """
        if not isinstance(linear, nn.Linear) or type(linear.weight) is not nn.Parameter:
            raise TypeError(f"SparseLinear.from_linear takes a plain nn.Linear, got {type(linear).__name__}")
        weight = linear.weight.detach()
        if mask is not None and mask.shape != weight.shape:
            raise ValueError(f"the mask {tuple(mask.shape)} does not fit the weight {tuple(weight.shape)}")
        kept = weight != 0 if mask is None else mask.to(weight.device, torch.bool)
        row, column = kept.nonzero(as_tuple=True)
        index = SparseIndex.from_rows(row_starts(row, len(weight)), column.int(), weight.shape[1])
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        bias = None if linear.bias is None else linear.bias.detach().clone()
        layer._build(index, weight[row, column], bias, "kaiming_uniform")
        layer.values.requires_grad_(linear.weight.requires_grad)
        if layer.bias is not None:
            layer.bias.requires_grad_(linear.bias.requires_grad)
        return layer.train(linear.training)

    def _build(self, index: SparseIndex, values: Tensor, bias: Tensor | None, init: Init) -> None:
        self.out_features, self.in_features = index.shape
        self.init = init
        self.values = nn.Parameter(values)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))
        for name, part in zip(("crow", "col", "ccol", "row_t", "perm"), index.parts, strict=True):
            self.register_buffer(name, part, persistent=name in ("crow", "col"))

    @property
    def index(self) -> SparseIndex:
        """Where the connections lie; its parts share memory with the layer."""
        return SparseIndex(self.crow, self.col, self.ccol, self.row_t, self.perm)

    @property
    def nnz(self) -> int:
        """How many connections exist."""
        return self.col.numel()

    @property
    def density(self) -> float:
        """The share of connections that exist."""
        return self.nnz / (self.in_features * self.out_features)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of nn.Linear
        """(..., in_features) -> (..., out_features), of the dtype of ``input``.

        Raises:
            NotImplementedError: a forward-mode derivative (jvp, jacfwd) is wanted.
        """
        refuse_forward_mode(type(self).__name__, "layer.to_linear()", input, self.values, self.bias)
        kind, x = input.device.type, input
        if kind != "meta" and x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        product: Tensor = sparse_linear_op(
            x, self.values, self.bias, self.crow, self.col, self.ccol, self.row_t, self.perm
        )
        return product

    def to_linear(self) -> nn.Linear:
        """The dense layer, with zeros.

        Raises:
            ValueError: it would have more than 2^28 weights.
        """
        if self.in_features * self.out_features > MOST_DENSE_ENTRIES:
            raise ValueError(
                f"a dense {self.out_features} x {self.in_features} weight takes "
                f"{self.in_features * self.out_features * self.values.element_size() / 2**30:.1f} GiB: keep it sparse"
            )
        weight = torch.zeros(
            (self.out_features, self.in_features), dtype=self.values.dtype, device=self.values.device
        )
        weight[self.index.rows(), self.col] = self.values.detach()
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=self.values.requires_grad)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        return linear.train(self.training)

    def fresh_values(self, count: int, generator: torch.Generator) -> Tensor:
        """Values for new connections, drawn as the first ones were."""
        shape = self.out_features, self.in_features
        fresh = fresh_values(self.init, count, shape, self.nnz, self.values.dtype, generator)
        return fresh.to(self.values.device)

    def set_index_(self, index: SparseIndex) -> None:
        """Take over an index of the same shape; ``values`` must be made to fit by the caller."""
        self.crow, self.col, self.ccol, self.row_t, self.perm = index.parts

    def set_values_(self, values: Tensor) -> None:
        """Take over another number of values; it stays the same parameter, without gradient.

        While a graph of before is alive (a loss that is kept), autograd remembers the old number, and would refuse the
        next gradient. It forgets it where the dtype changes, so that for a moment it does.
        """
        other = torch.float32 if values.dtype == torch.float64 else torch.float64
        self.values.grad = None
        self.values.data = values.new_empty(0, dtype=other)
        self.values.data = values

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """Also takes other connections than the layer has; refuses an index that is damaged."""
        crow, col = state_dict.get(f"{prefix}crow"), state_dict.get(f"{prefix}col")
        values, errors = state_dict.get(f"{prefix}values"), arguments[4]
        if crow is not None or col is not None:
            if crow is None or col is None or values is None:
                errors.append(f"{prefix}crow, {prefix}col, {prefix}values: load all three, or values alone")
                return
            try:
                check_rows(crow, col, self.in_features)
                if crow.shape != self.crow.shape or values.shape != col.shape:
                    raise ValueError(f"it has {crow.numel() - 1} rows and {values.numel()} values")
            except ValueError as error:
                errors.append(f"{prefix}crow, {prefix}col: {error}")
                return
            assigned = arguments[0].get("assign_to_params_buffers", False)
            self._make_room(crow, col, crow.device if assigned else self.crow.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _make_room(self, crow: Tensor, col: Tensor, device: torch.device) -> None:
        crow, col = (
            part.to(device, memory_format=torch.contiguous_format, copy=True) for part in (crow, col)
        )
        self.set_index_(SparseIndex.from_rows(crow, col, self.in_features))
        if self.values.shape != col.shape:
            self.set_values_(torch.zeros(col.shape, dtype=self.values.dtype, device=self.values.device))

    def extra_repr(self) -> str:
        """Sizes and density."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"nnz={self.nnz}, density={self.density:.3g}, dtype={self.values.dtype}"
        )


def connections(shape: tuple[int, int], density: float | None, epsilon: float | None) -> int:
    """How many connections a layer of this shape (outputs, inputs) gets.

    Raises:
        ValueError: not exactly one of ``density`` and ``epsilon``, or a value out of range.
    """
    if min(shape) < 1:
        raise ValueError(f"a layer of {shape[1]} inputs and {shape[0]} outputs: both must be at least 1")
    total = shape[0] * shape[1]
    if (density is None) == (epsilon is None):
        raise ValueError(
            "give either density= (0 to 1) or epsilon= (epsilon * (inputs + outputs) connections)"
        )
    if density is not None:
        if not 0 <= density <= 1:
            raise ValueError(f"density={density}: it must lie between 0 and 1")
        return round(density * total)
    assert epsilon is not None
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon={epsilon}: it must be finite, and not be negative")
    return min(round(epsilon * sum(shape)), total)
