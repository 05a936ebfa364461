"""A linear layer on sparse tensor cores that trains like ``nn.Linear``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bisparse.kernels.semi_structured import Packing, complete_mask, pack_mask, semi_structured_linear
from bisparse.kernels.semi_structured_limits import supports
from bisparse.pattern import NM, TransposableNM, parse_pattern

__all__ = ["SemiStructuredLinear", "supports"]

_BUFFERS = ("mask", "meta", "meta_t", "threads")


class SemiStructuredLinear(nn.Linear):
    """A linear layer whose products run on sparse tensor cores; for training, and for evaluation in between.

    Built with :meth:`from_linear`; parameters and state dict are those of the linear layer. After the mask has changed,
    call :meth:`refresh` with the new one: until then products follow the old. For pure inference prefer
    :func:`bisparse.to_semi_structured`, which packs once.
    """

    mask: Tensor
    meta: Tensor
    meta_t: Tensor
    threads: Tensor

    def __init__(self, linear: nn.Linear, pattern: NM | TransposableNM) -> None:
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, has_bias, device="meta")
        if (pattern.keep, pattern.block) != (2, 4):
            raise ValueError(f"{pattern}: sparse tensor cores know 2:4 and 2:4t only")
        self.weight, self.bias, self.pattern = linear.weight, linear.bias, pattern
        self.backend: str | None = None
        self._dtype: torch.dtype | None = None
        self.train(linear.training)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        mask: Tensor | None = None,
        *,
        pattern: str | NM | TransposableNM = "2:4t",
        dtype: torch.dtype | None = None,
        backend: str | None = None,
    ) -> SemiStructuredLinear:
        """Take over the parameters of a masked linear layer.

        Args:
            linear: its weight is on a CUDA device and holds zeros where it is masked.
            mask: boolean, shaped like the weight; by default found from the weight's non-zeros.
            pattern: ``"2:4t"`` (both directions) or ``"2:4"`` (forward only).
            dtype: of the products; by default the weight's, for float32 weights (autocast) bfloat16.
            backend: by default the first that fits.

        Raises:
            ValueError: the pattern is no 2:4, the weight or mask does not obey it, or no backend fits; the message
                names the rule and the remedy.
        """
        parsed = parse_pattern(pattern)
        if not isinstance(parsed, (NM, TransposableNM)):
            raise ValueError(f"{parsed}: sparse tensor cores know 2:4 and 2:4t only")
        return cls(linear, parsed).refresh(mask, dtype=dtype, backend=backend)

    def refresh(
        self, mask: Tensor | None = None, *, dtype: torch.dtype | None = None, backend: str | None = None
    ) -> SemiStructuredLinear:
        """Pack a new mask, by default the weight's non-zeros, completed where there are fewer than two of four.

        Returns itself. Cost: one exact solve on the device and one word back to the host.

        Raises:
            ValueError: as :meth:`from_linear`.
        """
        kept = self.weight.detach() != 0 if mask is None else mask
        _check_groups(kept)
        single = torch.bfloat16 if self.weight.dtype == torch.float32 else self.weight.dtype
        self._dtype = dtype or self._dtype or single
        packing = pack_mask(
            complete_mask(kept, self.pattern),
            self._dtype,
            both_ways=isinstance(self.pattern, TransposableNM),
            backend=backend or self.backend,
        )
        self.backend = packing.backend
        for name in _BUFFERS:
            self.register_buffer(name, getattr(packing, name), persistent=False)
        return self

    @property
    def packing(self) -> Packing:
        """The packed mask.

        Raises:
            RuntimeError: there is none yet.
        """
        if self.backend is None:
            raise RuntimeError("no mask is packed: build the layer with from_linear, or call refresh()")
        both_ways = isinstance(self.pattern, TransposableNM)
        return Packing(self.backend, both_ways, self.mask, self.meta, self.meta_t, self.threads)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of nn.Linear
        """(..., in_features) -> (..., out_features)."""
        return semi_structured_linear(input, self.weight, self.packing, self.bias)

    def to_linear(self) -> nn.Linear:
        """The ordinary layer, with the same parameters."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear.train(self.training)

    def extra_repr(self) -> str:
        """Sizes, pattern and backend."""
        return f"{super().extra_repr()}, pattern={self.pattern}, backend={self.backend}"


def _check_groups(kept: Tensor) -> None:
    if kept.ndim != 2 or kept.shape[0] % 4 or kept.shape[1] % 4:
        raise ValueError(
            f"shape {tuple(kept.shape)}: 2:4 products need two dimensions, both multiples of 4; leave it dense"
        )
