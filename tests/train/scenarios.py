"""All scenarios of two processes, and the process that runs them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tests.train import divided, thresholded
from tests.train import two_processes as copies

SCENARIOS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "ddp": lambda r, f: copies.ddp(r, f, after=False),
    "ddp, prepared after": lambda r, f: copies.ddp(r, f, after=True),
    "ddp, accumulated": lambda r, f: copies.ddp(r, f, after=True, parts=2),
    "ddp decay": copies.ddp_decay,
    "ddp other seeds": copies.ddp_other_seeds,
    "fsdp": lambda r, f: divided.fsdp(r, f, after=False),
    "fsdp, prepared after": lambda r, f: divided.fsdp(r, f, after=True),
    "fsdp decay": lambda r, f: divided.fsdp_decay(r, f, after=False),
    "fsdp decay, prepared after": lambda r, f: divided.fsdp_decay(r, f, after=True),
    "fsdp checkpoint": divided.fsdp_checkpoint,
    "fsdp from plain state": divided.fsdp_from_plain_state,
    "soft": lambda r, f: divided.soft(r, f, after=False),
    "soft, prepared after": lambda r, f: divided.soft(r, f, after=True),
    "soft, cut": divided.soft_cut,
    "hybrid": divided.hybrid,
    "tensor parallel": divided.tensor_parallel,
    "zero": copies.zero,
    "thresholds": thresholded.together,
    "thresholds, divided": thresholded.divided,
}


def work(rank: int, folder: str, module: str = __name__) -> None:
    """Run every scenario of a module and write its result."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    for name, scenario in import_module(module).SCENARIOS.items():
        torch.save(scenario(rank, Path(folder)), Path(folder) / f"{name}.{rank}.pt")
    dist.destroy_process_group()
