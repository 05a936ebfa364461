"""A linear layer that computes with the kept values of an N:M weight and never makes the dense one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import bisparse.kernels.operators  # noqa: F401  (registers the operators)
from bisparse.kernels.packed import pack_matrix
from bisparse.nn.find_pattern import find_pattern
from bisparse.nn.packed_layer import PackedLayer
from bisparse.pattern import NM, TransposableNM
from bisparse.weights.kinds import module_layouts, unsupported_reason

__all__ = ["PackedLinear"]


class PackedLinear(PackedLayer):
    """``y = x W^T + b`` for an N:M weight held as its kept values and one bit per entry.

    At 50% density the weight takes 0.53 of the dense bytes in float32 and 0.56 in bfloat16. Where a product waits for
    memory, as with few tokens per call, it is faster by about as much; with hundreds of tokens the dense layer is.
    Differentiable in the input and in the kept values (training on a fixed mask); neither pass makes a tensor of the
    dense shape. CPU, float32 or bfloat16 weights and activations in any combination, sums in float32, output in the
    dtype of the input. ``state_dict`` is the packed form.

    Args:
        in_features: columns of the weight.
        out_features: its rows.
        pattern: ``keep:block`` along the input features.
        bias: whether there is one.
        dtype: of values and bias.

    Raises:
        ValueError: a pattern that is not ``keep:block``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pattern: str | NM | TransposableNM,
        bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, in_features, pattern, bias, dtype)
        self.in_features, self.out_features = in_features, out_features

    @classmethod
    def from_linear(
        cls, linear: nn.Module, pattern: str | NM | TransposableNM | None = None, mask: Tensor | None = None
    ) -> PackedLinear:
        """Pack a masked layer.

        Args:
            linear: ``nn.Linear``, or the ``Conv1D`` of ``transformers``, on the CPU; it is not changed.
            pattern: that its weight obeys; without it, the one that takes the least memory is found.
            mask: (out_features, in_features), True = kept; without it, the non-zero weights are.

        Returns:
            A layer with its own memory that computes the same function. Kept entries learn where the weight did.

        Raises:
            TypeError: another kind of module or a weight that cannot be packed.
            ValueError: the weight breaks the pattern, or none makes it smaller; the message names the place and the
                remedy.
        """
        weight = getattr(linear, "weight", None)
        layout = module_layouts(linear).get("weight") if isinstance(weight, nn.Parameter) else None
        if (
            not isinstance(weight, nn.Parameter)
            or layout is None
            or layout.kind not in ("linear", "transposed")
        ):
            raise TypeError(f"PackedLinear.from_linear takes a linear layer, got {type(linear).__name__}")
        if (reason := unsupported_reason(linear, weight)) is not None:
            raise TypeError(f"a weight {reason}")
        matrix = weight.detach() if layout.kind == "linear" else weight.detach().t()
        wanted = find_pattern(matrix, mask) if pattern is None else pattern
        packed = pack_matrix(matrix, wanted, mask)
        bias = getattr(linear, "bias", None)
        layer = cls.__new__(cls)
        rows, columns = packed.shape
        with torch.device("meta"):
            PackedLinear.__init__(layer, columns, rows, packed.pattern, bias is not None, weight.dtype)
        layer._adopt(packed, weight, bias)
        return layer.train(linear.training)

    def to_linear(self) -> nn.Linear:
        """The dense layer, with zeros."""
        linear = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, device="meta", dtype=self.values.dtype
        )
        linear.weight = nn.Parameter(self.packed.unpack(), requires_grad=self.values.requires_grad)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        return linear.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self._multiply(self._ready(x))

    def extra_repr(self) -> str:
        """Sizes, pattern and dtype."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self._sizes()}"
