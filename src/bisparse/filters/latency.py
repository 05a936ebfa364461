"""Time of one forward pass, of several networks in turn."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from statistics import median

from torch import nn

from bisparse.compress.calibration import Call, evaluation_state
from bisparse.timing import interleave

__all__ = ["measure_latency"]


def measure_latency(
    models: Mapping[str, nn.Module], call: Call, *, repeats: int = 7, seconds: float = 10.0
) -> dict[str, float]:
    """Median seconds of one call of every network, measured in turn in evaluation mode."""
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluation_state(model))
        samples = interleave(
            {name: partial(call.run, model) for name, model in models.items()},
            repeats=repeats,
            seconds=seconds,
        )
    return {name: median(times) for name, times in samples.items()}
