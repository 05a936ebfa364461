"""RigL for truly sparse layers: connections grow where the gradient is largest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from bisparse.nn.sparse_linear import SparseLinear
from bisparse.nn.sparse_recorder import GradientRecorder
from bisparse.nn.sparse_topology import rigl_step_
from bisparse.pattern import part_of
from bisparse.train.callback import LogRow
from bisparse.train.evolution.evolution import Evolution
from bisparse.train.processes import Processes
from bisparse.train.topology.fraction import Fraction

if TYPE_CHECKING:
    from bisparse.train.trainer import Trainer

__all__ = ["RiglEvolution"]


class RiglEvolution(Evolution):
    """RigL every so many steps until a share of the run is over; the number of connections stays.

    The share that is dropped falls from ``alpha`` to 0 on a cosine. Gradients of absent connections come from the batch
    of the step before the edit (of all processes together), so no pass is made for them; unlike in the original, that
    step's update is not left out.

    Args:
        alpha: share of each layer's connections that the first edit drops.
        every: steps between two edits.
        until: share of the run's steps after which connections stay, in (0, 1].
        candidates: random absent connections that are looked at for each that is grown, or ``"exact"``: all, for the
            cost of a dense product.
        last_layer: whether the model's last layer evolves, too.

    Raises:
        ValueError: a number out of range.

    Source: U. Evci et al., "Rigging the lottery: making all tickets winners", 2020; random candidates are an
    approximation that keeps memory and time proportional to the connections.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        *,
        every: int = 100,
        until: float = 0.75,
        candidates: Literal["exact"] | int = 10,
        last_layer: bool = True,
    ) -> None:
        super().__init__(last_layer=last_layer)
        if not 0.0 <= alpha <= 1.0 or not 0.0 < until <= 1.0:
            raise ValueError(f"alpha={alpha}, until={until}: must be shares of 1")
        if every < 1 or (candidates != "exact" and candidates < 1):
            raise ValueError(f"every={every}, candidates={candidates}: must be at least 1")
        self._alpha, self._every, self._until = alpha, every, until
        self._candidates: Literal["exact"] | int = candidates
        self._recorder: _JointRecorder | None = None

    def fraction(self, step: int, total: int) -> float:
        """The share of connections that is dropped at a step of so many; 0 once connections stay."""
        return Fraction(self._alpha, "cosine", end=max(part_of(total, self._until), 1)).at(step)

    def on_start(self, trainer: Trainer) -> None:
        """Watch the first step where it is one before an edit.

        Raises:
            ValueError: see :class:`Evolution`; or the model is compiled.
        """
        if trainer.options.compile:
            raise ValueError(
                "RigL reads gradients in hooks that come and go, and a compiled model skips them: leave compile out"
            )
        super().on_start(trainer)
        self._watch(trainer)

    def on_step(self, trainer: Trainer, row: LogRow) -> None:  # noqa: ARG002
        """Edit with what was recorded, or begin to record."""
        if self._recorder is not None:
            self._edit(trainer, self._recorder)
        self._watch(trainer)

    def _watch(self, trainer: Trainer) -> None:
        """Record the coming step if an edit follows it."""
        coming = trainer.step + 1
        if coming % self._every == 0 and self.fraction(coming, trainer.total_steps) > 0.0:
            self._recorder = _JointRecorder(self.layers(trainer), trainer.processes)
            self._recorder.__enter__()

    def _edit(self, trainer: Trainer, recorder: _JointRecorder) -> None:
        recorder.__exit__(None, None, None)
        self._recorder = None
        fraction = self.fraction(trainer.step, trainer.total_steps)
        self.edit(
            trainer,
            lambda layer, generator, optimizer: rigl_step_(
                layer,
                recorder,
                fraction,
                candidates=self._candidates,
                generator=generator,
                optimizer=optimizer,
            ),
            kind=2,
        )


class _JointRecorder(GradientRecorder):
    """Inputs and gradients of all processes together, in the same order everywhere."""

    def __init__(self, layers: list[SparseLinear], processes: Processes) -> None:
        super().__init__(layers)
        self._processes = processes

    def of(self, layer: SparseLinear) -> tuple[Tensor, Tensor]:
        """(whole batch, in_features) and (whole batch, out_features)."""
        x, grad = (torch.cat(self._processes.gathered(part)) for part in super().of(layer))
        return x, grad
