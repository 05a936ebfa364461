"""All scores by name, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from bisparse.scores.magnitude import magnitude
from bisparse.scores.obs import obs
from bisparse.scores.ria import ria
from bisparse.scores.statistics import LayerStatistics
from bisparse.scores.wanda import wanda
from bisparse.weights import Weight, as_rows
from bisparse.weights.rows import from_rows

__all__ = ["SCORES", "ScoreFunction", "Scores", "needs_data", "score_rows"]

ScoreFunction: TypeAlias = Callable[[Tensor, LayerStatistics], Tensor]
Scores: TypeAlias = "str | Mapping[str, Tensor] | Callable[[Tensor, LayerStatistics | None], Tensor]"

SCORES: dict[str, Callable[..., Tensor]] = {"magnitude": magnitude, "wanda": wanda, "obs": obs, "ria": ria}


def needs_data(scores: Scores) -> bool:
    """Whether these scores need calibration statistics."""
    return isinstance(scores, str) and scores != "magnitude"


def _check(scores: Tensor, shape: torch.Size, name: str) -> Tensor:
    if scores.shape != shape:
        raise ValueError(f"scores of {name} have shape {tuple(scores.shape)}, its weight has {tuple(shape)}")
    if not bool(torch.isfinite(scores).all()) or bool((scores < 0).any()):
        raise ValueError(
            f"scores of {name} must be finite and non-negative: pass scores.abs() for signed ones"
        )
    return scores


def score_rows(scores: Scores, weight: Weight, rows: Tensor, statistics: LayerStatistics | None) -> Tensor:
    """Scores of one weight in its (G, R, D) view.

    Args:
        scores: a name of :data:`SCORES`; a mapping from weight names to tensors shaped like the weights; or a
            callable
            ``(weight tensor, statistics or None) -> tensor`` shaped like the weight.
        weight: the weight that is scored.
        rows: its (G, R, D) view.
        statistics: of its inputs, or ``None`` without calibration data.

    Raises:
        ValueError: unknown name, missing entry, wrong shape, negative or non-finite scores, or data needed
            but absent.
    """
    if isinstance(scores, str):
        if scores not in SCORES:
            raise ValueError(
                f"unknown scores {scores!r}: use one of {', '.join(SCORES)}, a mapping or a callable"
            )
        if needs_data(scores) and statistics is None:
            raise ValueError(f"scores={scores!r} need calibration data that reach {weight.name}")
        return SCORES[scores](rows, statistics)
    if isinstance(scores, Mapping):
        if weight.name not in scores:
            raise ValueError(
                f"scores have no entry for {weight.name!r}; it has {', '.join(list(scores)[:5])} ..."
            )
        given = scores[weight.name].to(rows.device)
    else:
        given = scores(from_rows(rows, weight.layout, weight.parameter.shape), statistics)
    return as_rows(_check(given, weight.parameter.shape, weight.name), weight.layout).to(rows.dtype)
