"""One of two processes in which a real package trains: whole, killed, or resumed."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist


def work(rank: int, module: str, folder: str, port: int, step: int, resume: bool) -> None:
    """Train through and then train again until killed; or go on where that ended. Weights and masks go to files."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="localhost")
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # it listens in the process that started this one
    torch.set_num_threads(1)
    run = import_module(f"tests.integrations.{module}").run
    for name, kill in [("resumed", None)] if resume else [("whole", None), ("killed", step)]:
        output = Path(folder) / ("whole" if name == "whole" else "killed")
        model, sparsifier = run(output, kill, resume)
        state = {"model": model.state_dict(), "masks": sparsifier.masks}
        torch.save(state, Path(folder) / f"{name}.{rank}.pt")
    dist.barrier()  # a process that leaves while another still talks to it may take that down
    dist.destroy_process_group()
