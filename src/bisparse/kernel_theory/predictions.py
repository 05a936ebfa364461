"""The network and its kernels as predictors of held-out examples."""

from __future__ import annotations

from torch import Tensor

from bisparse.kernel_theory.evidence import Evidence, Side

__all__ = ["held_out_errors"]


def held_out_errors(evidence: Evidence) -> dict[str, float]:
    """Mean squared error over held-out examples and outputs, by predictor; empty without held-out targets.

    Of a network trained by cross-entropy, its probabilities are compared with the classes (the Brier score).
    Ridges are those of the identities (n λ for H, L n λ for K); without a penalty only the ridgeless ones are there.
    """
    side = evidence.held_out
    if side is None or side.targets is None:
        return {}
    truth = side.targets
    given = side.outputs.softmax(1) if evidence.loss == "cross_entropy" else side.outputs
    predictions = {"network": given} | _by_kernel(evidence, side)
    return {name: float((predicted - truth).square().mean()) for name, predicted in predictions.items()}


def _by_kernel(evidence: Evidence, side: Side) -> dict[str, Tensor]:
    ridge = evidence.count * evidence.penalty
    found: dict[str, Tensor] = {}
    for word, factor in (("ridge", 1.0), ("ridgeless", 0.0)):
        if word == "ridge" and ridge == 0:
            continue
        y = evidence.targets.reshape(-1, 1) if evidence.full else evidence.targets
        scaled = factor * ridge * (evidence.scaling.degree or 1.0)
        found[f"{word} K"] = (side.K @ evidence.K.solve(y, scaled)).reshape(side.outputs.shape)
        if evidence.H is not None and side.features is not None and evidence.train.features is not None:
            solved = evidence.H.solve(evidence.targets, factor * ridge)
            found[f"{word} H"] = side.features @ (evidence.train.features.T @ solved)
    return found
