"""Masks of the kernel benchmark, and how many others their pattern allows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bisparse.diversity import mask_diversity, paper_transposable_diversity
from bisparse.kernel_theory.jacobian_scores import jacobian_scores
from bisparse.masks.solve import solve_mask

__all__ = ["diversities", "make_masks"]


def make_masks(
    model: nn.Module, names: tuple[str, ...], pattern: str, choice: str, X: Tensor, seed: int
) -> dict[str, Tensor]:
    """Masks that keep half of the named weights.

    Args:
        model: dense.
        names: of the weights.
        pattern: a pattern's text, or ``"filters"``.
        choice: ``"magnitude"``, ``"saliency"`` or ``"random"``.
        X: examples for the saliency.
        seed: of random scores.
    """
    scores = _scores(model, names, choice, X, seed)
    if pattern == "filters":
        return {name: _best_rows(score) for name, score in scores.items()}
    return {name: solve_mask(score, pattern, threads=1).mask for name, score in scores.items()}


def _scores(
    model: nn.Module, names: tuple[str, ...], choice: str, X: Tensor, seed: int
) -> Mapping[str, Tensor]:
    parameters = dict(model.named_parameters())
    if choice == "magnitude":
        return {name: parameters[name].detach().abs() for name in names}
    if choice == "saliency":
        found = jacobian_scores(model, X, kind="saliency")
        return {name: found[name] for name in names}
    if choice == "random":
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(parameters[name].shape, generator=generator) for name in names}
    raise ValueError(f"choice={choice!r}: use magnitude, saliency or random")


def _best_rows(scores: Tensor) -> Tensor:
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[scores.sum(1).topk(len(scores) // 2).indices] = True
    return mask


def diversities(pattern: str, shapes: list[tuple[int, ...]]) -> tuple[float, float]:
    """Decimal logarithms of the number of masks: by the 2021 paper's formulas, and true."""
    if pattern == "filters":
        count = math.fsum(math.log10(math.comb(rows, rows // 2)) for rows, *_ in shapes)
        return count, count
    true = math.fsum(mask_diversity(pattern, shape).log10 for shape in shapes)
    if not pattern.endswith("t"):
        return true, true
    return math.fsum(paper_transposable_diversity(pattern, shape).log10 for shape in shapes), true
