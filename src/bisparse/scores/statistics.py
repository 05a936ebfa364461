"""What calibration data say about one layer: second moments of its inputs, and their products with its
targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LayerStatistics"]

_BLOCK = 48  # columns of a product at least; narrower ones cost as much as they save
_CHUNK = 4096  # samples per product: float32 rounding stays inside a chunk, chunks add up in float64


def _add_gram(total: Tensor, x: Tensor) -> None:
    """Add xᵀ x to a total in place; blocks left of the diagonal are copied, which saves up to 3/8 of the work.

    The total stays symmetric bit for bit: not every processor's product of a matrix with its transpose is.
    """
    columns = x.shape[1]
    step = -(-columns // min(4, max(1, columns // _BLOCK)))
    for first in range(0, columns, step):
        last = first + step
        total[first:last, first:] += x[:, first:last].T @ x[:, first:]
        total[last:, first:last] = total[first:last, last:].T
        square = total[first:last, first:last]
        square.copy_(square.triu() + square.triu(1).T)


@dataclass(slots=True, eq=False)
class LayerStatistics:
    """Running sums over calibration samples of a layer with G groups, R outputs and D inputs.

    The layer's targets are ``y`` (R,), its inputs ``x`` (D,); in sequential compression ``x`` comes from the
    pruned network and ``y`` from the dense one. All sums are float64; memory is that of one layer, whatever
    the data set.

    Attributes:
        gram: (G, D, D), sum of x xᵀ.
        cross: (G, R, D), sum of y xᵀ.
        input_sum: (G, D), sum of x.
        output_sum: (G, R), sum of y.
        output_square: (G,), sum of |y|².
        count: (G,), number of samples.
    """

    gram: Tensor
    cross: Tensor
    input_sum: Tensor
    output_sum: Tensor
    output_square: Tensor
    count: Tensor

    @classmethod
    def zeros(
        cls, groups: int, rows: int, columns: int, device: torch.device | None = None
    ) -> LayerStatistics:
        """Statistics of no sample."""

        def make(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(
            gram=make(groups, columns, columns),
            cross=make(groups, rows, columns),
            input_sum=make(groups, columns),
            output_sum=make(groups, rows),
            output_square=make(groups),
            count=make(groups),
        )

    def update(self, inputs: Tensor, targets: Tensor) -> None:
        """Add samples to every group.

        Args:
            inputs: (G, n, D), floating point.
            targets: (G, n, R), floating point.

        Raises:
            ValueError: shapes do not fit, or values are not finite.
        """
        groups, rows, columns = self.cross.shape
        if inputs.shape != (groups, inputs.shape[1], columns) or targets.shape != (
            groups,
            inputs.shape[1],
            rows,
        ):
            raise ValueError(
                f"inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)} do not fit statistics of "
                f"{groups} groups, {rows} outputs and {columns} inputs"
            )
        for group in range(groups):
            self.update_group(group, inputs[group], targets[group])

    def update_group(self, group: int, inputs: Tensor, targets: Tensor) -> None:
        """Add (n, D) inputs and (n, R) targets to one group; cost n D (D + R)."""
        inputs, targets = (t if t.dtype == torch.float64 else t.float() for t in (inputs, targets))
        for x, y in zip(torch.split(inputs, _CHUNK), torch.split(targets, _CHUNK), strict=True):
            _add_gram(self.gram[group], x)
            self.cross[group] += y.T @ x
            ones = x.new_ones(len(x))  # a product sums many times faster than a reduction over rows
            self.input_sum[group] += ones @ x
            self.output_sum[group] += ones.to(y.dtype) @ y
            self.output_square[group] += y.flatten().dot(y.flatten())
        self.count[group] += inputs.shape[0]
        if not torch.isfinite(self.gram[group].diagonal().sum() + self.output_square[group]):
            raise ValueError("the activations contain NaN or infinity")

    def input_norm(self) -> Tensor:
        """(G, D): Euclidean norm of every input over the samples."""
        return self.gram.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()

    def hessian(self, damping: float = 1e-2) -> Tensor:
        """(G, D, D): gram + damping * mean of its diagonal * identity; the identity where no sample was seen.

        Dead inputs (always zero) make the gram singular; the damping makes it definite.
        """
        scale = self.gram.diagonal(dim1=-2, dim2=-1).mean(-1)
        ridge = torch.where(scale > 0, damping * scale, torch.ones_like(scale))
        return self.gram + ridge[:, None, None] * torch.eye(self.gram.shape[-1], dtype=self.gram.dtype).to(
            ridge
        )

    def centred(self) -> LayerStatistics:
        """The same statistics about the means: what remains to be fitted when a bias absorbs the means."""
        count = self.count.clamp_min(1.0)
        x, y = self.input_sum, self.output_sum
        return LayerStatistics(
            gram=self.gram - x[:, :, None] * x[:, None, :] / count[:, None, None],
            cross=self.cross - y[:, :, None] * x[:, None, :] / count[:, None, None],
            input_sum=torch.zeros_like(x),
            output_sum=torch.zeros_like(y),
            output_square=self.output_square - y.square().sum(-1) / count,
            count=self.count,
        )

    def squared_error(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """(G,): sum over the samples of |y - rows x - bias|².

        Args:
            rows: (G, R, D).
            bias: (G, R), added to the outputs; ``None`` = zero.
        """
        rows = rows.to(self.gram)
        error = (
            self.output_square - 2 * (rows * self.cross).sum((1, 2)) + (rows @ self.gram * rows).sum((1, 2))
        )
        if bias is not None:
            bias = bias.to(self.gram)
            mean_term = (rows @ self.input_sum[:, :, None]).squeeze(2) - self.output_sum
            error = error + 2 * (bias * mean_term).sum(1) + self.count * bias.square().sum(1)
        return error.clamp_min(0.0)

    def relative_error(self, rows: Tensor, bias: Tensor | None = None) -> float:
        """|Y - rows X - bias| / |Y| in Frobenius norm over all groups; 0 where there is no output at all."""
        total = float(self.output_square.sum())
        return (float(self.squared_error(rows, bias).sum()) / total) ** 0.5 if total > 0.0 else 0.0
