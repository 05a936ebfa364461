"""The demo's files: two pictures, the numbers, and two checkpoints for the next commands to work on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bisparse.demo.comparison_picture import draw_comparison
from bisparse.demo.mask_picture import draw_masks
from bisparse.demo.report import DemoReport

__all__ = ["DemoFiles", "save_state", "write_outputs"]


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the demo's files are."""

    masks: Path
    comparison: Path
    numbers: Path
    dense: Path
    sparse: Path


def write_outputs(report: DemoReport, folder: Path) -> DemoFiles:
    """Write everything into a folder, made where it is missing; older files of the demo are replaced.

    Raises:
        ImportError: matplotlib is missing; it comes with the extra ``bisparse[demo]``.
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / "demo.json"
    numbers.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    return DemoFiles(
        masks=draw_masks(report, folder / "masks.png"),
        comparison=draw_comparison(report, folder / "comparison.png"),
        numbers=numbers,
        dense=save_state(report.state, folder / "dense.safetensors"),
        sparse=save_state(report.sparse_state, folder / "sparse.safetensors"),
    )


def save_state(state: Mapping[str, Tensor], path: Path) -> Path:
    """One checkpoint as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path
