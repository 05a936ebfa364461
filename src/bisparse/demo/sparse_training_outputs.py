"""The files of the demo of sparse training: a picture, the numbers, and a sparse checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bisparse.demo.outputs import save_state
from bisparse.demo.sparse_training_picture import draw_sparse_training
from bisparse.demo.sparse_training_report import SparseTrainingReport

__all__ = ["SparseTrainingFiles", "write_sparse_training"]


@dataclass(frozen=True, slots=True)
class SparseTrainingFiles:
    """Where the files are."""

    picture: Path
    numbers: Path
    sparse: Path


def write_sparse_training(report: SparseTrainingReport, folder: Path) -> SparseTrainingFiles:
    """Write everything into a folder, made where it is missing; older files of the same demo are replaced.

    Raises:
        ImportError: matplotlib is missing; it comes with the extra ``bisparse[demo]``.
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / "sparse-training.json"
    numbers.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    return SparseTrainingFiles(
        picture=draw_sparse_training(report, folder / "sparse-training.png"),
        numbers=numbers,
        sparse=save_state(report.state, folder / "set.safetensors"),
    )
