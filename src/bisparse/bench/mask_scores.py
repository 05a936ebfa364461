"""Scores to solve: drawn from distributions, or the magnitudes of real pretrained weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["DATA_KINDS", "data_folder", "make_weights", "perturb"]

REAL_TILE = 64


def make_weights(kind: str, size: int, *, seed: int = 0) -> Tensor:
    """A signed float32 weight matrix (size, size) of a named kind.

    Args:
        kind: ``gaussian``; ``student`` (t distribution with 3 degrees of freedom, heavy-tailed); ``zeros80``
            and ``zeros95`` (Gaussian, the smallest 80% or 95% set to zero, as by magnitude pruning); ``real``
            (64 x 64 pieces of the pretrained checkpoints in the data folder, repeated to fill the matrix).
        size: rows and columns.
        seed: of the draw.

    Raises:
        ValueError: an unknown kind.
        FileNotFoundError: ``real`` without the checkpoints.
    """
    if kind not in DATA_KINDS:
        raise ValueError(f"data {kind!r} is unknown: choose from {', '.join(DATA_KINDS)}")
    return DATA_KINDS[kind](size, torch.Generator().manual_seed(seed))


def perturb(weights: Tensor, relative: float, *, seed: int = 1) -> Tensor:
    """The weights after a small change, as between mask refreshes: noise of relative * std(weights)."""
    noise = torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed))
    return weights + relative * weights.std() * noise


def data_folder() -> Path:
    """The folder of real data: the environment variable ``BISPARSE_DATA``, else ``../shared/data``."""
    return Path(os.environ.get("BISPARSE_DATA", "../shared/data"))


def _gaussian(size: int, generator: torch.Generator) -> Tensor:
    return torch.randn(size, size, generator=generator)


def _student(size: int, generator: torch.Generator) -> Tensor:
    squares = sum(torch.randn(size, size, generator=generator).square_() for _ in range(3))
    return _gaussian(size, generator) / torch.sqrt(torch.as_tensor(squares) / 3)


def _zeros(share: float) -> Callable[[int, torch.Generator], Tensor]:
    def draw(size: int, generator: torch.Generator) -> Tensor:
        weights = _gaussian(size, generator)
        threshold = weights.abs().flatten().kthvalue(max(1, round(share * weights.numel()))).values
        return weights.where(weights.abs() > threshold, torch.zeros(()))

    return draw


def _real(size: int, generator: torch.Generator) -> Tensor:
    """Real pieces laid out as one matrix, in an order drawn by the generator."""
    pieces = torch.stack(list(_pieces(data_folder())))
    per_side = -(-size // REAL_TILE)
    order = torch.randint(len(pieces), (per_side * per_side,), generator=generator)
    grid = pieces[order].reshape(per_side, per_side, REAL_TILE, REAL_TILE)
    return grid.transpose(1, 2).reshape(per_side * REAL_TILE, -1)[:size, :size].contiguous()


def _pieces(folder: Path) -> Iterator[Tensor]:
    """Every complete 64 x 64 piece of the checkpoints' weight matrices; convolutions per kernel position."""
    for name in ("resnet_cifar10/resnet32-d509ac18.th", "tinyllama/stories260K.pt"):
        path = folder / name
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: set BISPARSE_DATA to the folder of real data, or leave out 'real'"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        for weight in state.values():
            if weight.ndim >= 2 and min(weight.shape[:2]) >= REAL_TILE:
                for matrix in weight.float().reshape(*weight.shape[:2], -1).unbind(-1):
                    tiles = matrix.unfold(0, REAL_TILE, REAL_TILE).unfold(1, REAL_TILE, REAL_TILE)
                    yield from tiles.flatten(0, 1)


DATA_KINDS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "gaussian": _gaussian,
    "student": _student,
    "zeros80": _zeros(0.80),
    "zeros95": _zeros(0.95),
    "real": _real,
}
