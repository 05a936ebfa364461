"""Sparse training in Hugging Face's ``Trainer``: one callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bisparse.integrations.attach import attach_all, figures
from bisparse.train.run_state import load_run_state, save_run_state
from bisparse.train.sparsifier import Sparsifier

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError('this callback needs transformers: pip install "bisparse[transformers]"') from error

__all__ = ["BisparseCallback"]

_FILE = "bisparse.pt"


class BisparseCallback(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Keeps the model sparse while the ``Trainer`` trains it.

    ``Trainer(..., callbacks=[BisparseCallback(bs.Sparsifier("2:4t"))])``, and nothing else. Checkpoints and
    ``save_pretrained`` hold the sparse model at any moment; what is hidden is in ``bisparse.pt`` next to it, so that
    ``train(resume_from_checkpoint=...)`` goes on bit for bit. What the last refresh changed is added to
    ``state.log_history`` and to what callbacks after this one log.

    Args:
        sparsifier: not yet prepared.
        checkpoint: the folder to resume from, if it is neither ``args.resume_from_checkpoint`` nor in
            ``args.output_dir`` under the ``Trainer``'s own name.
    """

    def __init__(self, sparsifier: Sparsifier, *, checkpoint: str | Path | None = None) -> None:
        self.sparsifier = sparsifier
        self._checkpoint = checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Prepare; a resumed run finds its weights and its optimizer loaded by now.

        Raises:
            ValueError: the checkpoint has no ``bisparse.pt``.
        """
        saved = load_run_state(self._file(args, state)) if state.global_step else None
        attach_all(self.sparsifier, given["model"], [given["optimizer"]], saved)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Save next to the ``Trainer``'s own files."""
        saved = self.sparsifier.state_dict()
        if args.should_save:
            save_run_state(_folder(args, state) / _FILE, saved)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Add what the last refresh changed to the log and its history."""
        changed = figures(self.sparsifier)
        given.get("logs", {}).update(changed)
        if state.log_history:
            state.log_history[-1].update(changed)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """The model stays sparse; hooks and hidden values go."""
        self.sparsifier.squash_mask()

    def _file(self, args: Any, state: Any) -> Path:
        named = self._checkpoint or args.resume_from_checkpoint
        folders = [Path(named)] if isinstance(named, (str, Path)) else []
        folders.append(_folder(args, state))
        for folder in folders:
            if (folder / _FILE).is_file():
                return folder / _FILE
        raise ValueError(
            f"{folders[0]} has no {_FILE}: it was written without this callback, or killed while it was written; "
            "resume from an earlier one, or say where it is: BisparseCallback(..., checkpoint=folder)"
        )


def _folder(args: Any, state: Any) -> Path:
    """Where the ``Trainer`` keeps the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
