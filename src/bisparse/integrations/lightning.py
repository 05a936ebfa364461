"""Sparse training in Lightning's ``Trainer``: one callback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bisparse.integrations.attach import attach_all, figures
from bisparse.train.sparsifier import Sparsifier

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as error:
    raise ImportError('this callback needs lightning: pip install "bisparse[lightning]"') from error

__all__ = ["BisparseCallback"]


class BisparseCallback(Callback):  # type: ignore[misc] # lightning's types are not looked at
    """Keeps the module sparse while the ``Trainer`` trains it.

    ``Trainer(..., callbacks=[BisparseCallback(bs.Sparsifier("2:4t"))])``, and nothing else. Checkpoints hold the sparse
    module and, as the callback's state, what is hidden: ``fit(ckpt_path=...)`` goes on bit for bit. Every refresh is
    sent to the loggers.

    Args:
        sparsifier: not yet prepared.
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        self.sparsifier = sparsifier
        self._pending: Mapping[str, Any] | None = None
        self._logged = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Prepare; a resumed run has loaded the module's weights by now, its optimizers' state follows."""
        attach_all(self.sparsifier, pl_module, trainer.optimizers, self._pending)
        self._pending = None

    def on_train_batch_end(self, trainer: Any, *given: Any) -> None:  # noqa: ARG002
        """Log a refresh."""
        refreshes = len(self.sparsifier.history)
        if refreshes == self._logged:
            return
        self._logged = refreshes
        for logger in trainer.loggers:
            logger.log_metrics(figures(self.sparsifier), step=trainer.global_step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """The module stays sparse; hooks and hidden values go."""
        self.sparsifier.squash_mask()

    def state_dict(self) -> dict[str, Any]:
        """The sparsifier's state."""
        return self.sparsifier.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint: at once, or as soon as the module is prepared."""
        if self.sparsifier.weights:
            self.sparsifier.load_state_dict(state_dict)
        else:
            self._pending = state_dict
