"""Checkpoints of a training run: replaced in one step, so that a killed run finds the old or the new one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_run_state", "save_run_state"]


def save_run_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the old one stays until the new one is safely on disk."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def load_run_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the processor's memory.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no readable checkpoint ({error}): start anew with --force") from error
    return found
