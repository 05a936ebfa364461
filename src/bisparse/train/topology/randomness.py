"""Random numbers that depend on the seed, the weight, the step and the purpose, and on nothing else."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator"]


def generator(seed: int, name: str, step: int, purpose: str) -> torch.Generator:
    """A generator on the CPU. No state has to be saved: a resumed run draws the same numbers.

    Args:
        seed: of the topology.
        name: of the weight.
        step: completed optimizer steps.
        purpose: what the numbers are for.
    """
    digest = hashlib.sha256(f"{seed}/{name}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
