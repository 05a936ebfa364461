"""How the kept weights are fitted after, or together with, the choice of the mask: one small file each."""

from __future__ import annotations

from typing import Protocol

from bisparse.compress.problem import LayerProblem, Solution
from bisparse.compress.reconstruct.adaprune import AdaPrune
from bisparse.compress.reconstruct.alps import Alps
from bisparse.compress.reconstruct.bias import BiasCorrection
from bisparse.compress.reconstruct.least_squares import LeastSquares
from bisparse.compress.reconstruct.none import NoReconstruction
from bisparse.compress.reconstruct.sparsegpt import SparseGPT

__all__ = [
    "RECONSTRUCTIONS",
    "AdaPrune",
    "Alps",
    "BiasCorrection",
    "LeastSquares",
    "NoReconstruction",
    "Reconstruction",
    "SparseGPT",
]


class Reconstruction(Protocol):
    """A layer-wise method: a frozen dataclass of its options, called with one problem at a time."""

    @property
    def chooses_mask(self) -> bool:
        """Whether it chooses the mask itself and refuses scores."""

    @property
    def needs_data(self) -> bool:
        """Whether it needs calibration statistics."""

    def __call__(self, problem: LayerProblem) -> Solution:
        """Compress one layer."""


RECONSTRUCTIONS: dict[str, type[Reconstruction]] = {
    "none": NoReconstruction,
    "bias": BiasCorrection,
    "least_squares": LeastSquares,
    "adaprune": AdaPrune,
    "sparsegpt": SparseGPT,
    "alps": Alps,
}
