"""One network pruned by one method: solve, verify, mask, measure, fine-tune, measure again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bisparse.masks.result import MaskResult
from bisparse.masks.solve import solve_mask
from bisparse.masks.verify import verify_mask
from bisparse.pattern import Pattern, TransposableNM
from bisparse.zoo.fit import accuracy, fit
from bisparse.zoo.split import Split

__all__ = ["Trial", "apply_masks", "hidden_layers", "prune_and_tune", "tune"]

TUNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Trial:
    """What one network became under one pattern and method.

    Attributes:
        results: the solver's answer for every hidden layer.
        proof: the largest gap that the independent check confirms for a layer; ``inf`` is no proof.
        accuracy_pruned: test accuracy before fine-tuning.
        accuracy_tuned: test accuracy after it.
        model: the sparse, fine-tuned network.
    """

    results: tuple[MaskResult, ...]
    proof: float
    accuracy_pruned: float
    accuracy_tuned: float
    model: nn.Sequential

    @property
    def objective(self) -> float:
        """Magnitude that the masks keep."""
        return sum(result.objective for result in self.results)

    @property
    def seconds(self) -> float:
        """Time that the masks took."""
        return sum(result.seconds for result in self.results)

    @property
    def density(self) -> float:
        """Share of the hidden weights that is kept."""
        kept = sum(int(result.mask.sum().item()) for result in self.results)
        return kept / sum(result.mask.numel() for result in self.results)


def hidden_layers(model: nn.Sequential) -> list[nn.Linear]:
    """The Linear layers that the demo prunes: all but the last, which is the classifier."""
    return [layer for layer in model if isinstance(layer, nn.Linear)][:-1]


@torch.no_grad()
def apply_masks(layers: Sequence[nn.Linear], masks: Sequence[Tensor]) -> None:
    """Set the weights outside the masks to zero, in place."""
    for layer, mask in zip(layers, masks, strict=True):
        layer.weight.mul_(mask)


def tune(
    model: nn.Sequential, data: Split, masks: Sequence[Tensor] | None, *, epochs: int, seed: int
) -> None:
    """Fine-tune in place; with masks, masked weights are zero again after every step."""
    layers = hidden_layers(model)
    fit(
        model,
        data,
        epochs=epochs,
        learning_rate=TUNING_RATE,
        seed=seed,
        after_step=None if masks is None else lambda: apply_masks(layers, masks),
    )


def prune_and_tune(
    dense: nn.Sequential, data: Split, pattern: Pattern, method: str, *, epochs: int, seed: int
) -> Trial:
    """Prune a copy of the network by magnitude and fine-tune what is left.

    Raises:
        RuntimeError: the independent check does not confirm that the exact method's mask is optimal.
    """
    model = copy.deepcopy(dense)
    layers = hidden_layers(model)
    solved = [_solve(layer.weight.detach().abs(), pattern, method) for layer in layers]
    results = tuple(result for result, _ in solved)
    masks = [result.mask for result in results]
    apply_masks(layers, masks)
    pruned = accuracy(model, data.test_inputs, data.test_labels)
    tune(model, data, masks, epochs=epochs, seed=seed)
    tuned = accuracy(model, data.test_inputs, data.test_labels)
    return Trial(results, max(gap for _, gap in solved), pruned, tuned, model)


def _solve(scores: Tensor, pattern: Pattern, method: str) -> tuple[MaskResult, float]:
    """One layer's mask, and the gap that is proven by a checker that shares no code with the solver."""
    exact = method == "exact"
    wants_proof = exact and isinstance(pattern, TransposableNM)
    result = solve_mask(scores, pattern, method=method, return_duals=wants_proof)
    check = verify_mask(result.mask, pattern, scores=scores, duals=result.duals)
    if exact and not check.optimal:
        raise RuntimeError(f"the proof of {pattern} does not hold: gap {check.gap:g}, {check.violations}")
    return result, check.gap
