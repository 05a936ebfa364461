"""How many draws guarantee which error: a Bernstein bound without unknown constants, and its inverse."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = [
    "draws_for_distinct",
    "draws_needed",
    "expected_distinct",
    "provable_error",
    "sample_size",
    "top_error",
]

Probabilities = npt.NDArray[np.float64]


def _checked(delta: float, outputs: float) -> float:
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta}: a probability of failure lies strictly between 0 and 1")
    return math.log(2 * max(outputs, 1.0) / delta)


def draws_needed(
    eps: float, total: float, *, delta: float, outputs: float = 1.0, kappa: float = 1.0
) -> float:
    """Draws after which every output is right up to a relative error of eps, with probability 1 - delta.

    Problem: channels are drawn with replacement with probability p_c = s_c / S, and a channel that is drawn n_c
    times out of m is scaled by n_c / (m p_c). For one output z of non-negative terms in which channel c has a share
    of at most kappa s_c, each draw adds at most kappa S z / m, with a variance of at most kappa S z^2 / m in sum.
    Bernstein's inequality gives P(|z' - z| >= eps z) <= 2 exp(-3 eps^2 m / (kappa S (6 + 2 eps))), and a union bound
    over outputs::

        m >= kappa S (6 + 2 eps) ln(2 outputs / delta) / (3 eps^2)

    Args:
        eps: relative error, positive. Of outputs of mixed signs: of the sum of the magnitudes of both parts.
        total: S, the sum of the sensitivities.
        delta: probability that any output fails.
        outputs: how many the guarantee covers at once: channels times positions.
        kappa: by how much a share of an unseen sample may exceed the sensitivity.

    Returns:
        The number of draws, not rounded.
    """
    return kappa * total * (6 + 2 * eps) * _checked(delta, outputs) / (3 * eps * eps)


def provable_error(
    draws: float, total: float, *, delta: float, outputs: float = 1.0, kappa: float = 1.0
) -> float:
    """The eps that so many draws guarantee: the inverse of :func:`draws_needed`; infinite for no draws."""
    load = kappa * total * _checked(delta, outputs) / 3
    if draws <= 0 or not math.isfinite(load):
        return math.inf
    return (load + math.sqrt(load * load + 6 * load * draws)) / draws


def top_error(removed: float, scale: float, kappa: float = 1.0) -> float:
    """The relative error that keeping the most sensitive channels guarantees on samples that kappa covers.

    The removed channels have a share r of at most kappa times ``removed``, the sum of their sensitivities; what is left
    is scaled, so the error is |scale (1 - r) - 1| for some r between 0 and that. Where kappa is infinite,
    channels of sensitivity 0, too, may have any share.
    """
    share = min(1.0, kappa * removed) if math.isfinite(kappa) else 1.0
    return max(scale - 1.0, 1.0 - scale * (1.0 - share))


def expected_distinct(draws: float, probabilities: Probabilities) -> float:
    """Channels that are expected to be drawn at least once: sum of 1 - (1 - p_c)^m."""
    with np.errstate(divide="ignore"):
        return float(-np.expm1(draws * np.log1p(-np.minimum(probabilities, 1.0))).sum()) if draws > 0 else 0.0


def draws_for_distinct(distinct: float, probabilities: Probabilities) -> float:
    """Draws after which so many distinct channels are expected: the inverse of :func:`expected_distinct`."""
    low, high = 0.0, 1.0
    reachable = float((probabilities > 0).sum())
    if distinct >= reachable:
        return math.inf
    while expected_distinct(high, probabilities) < distinct:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if expected_distinct(middle, probabilities) < distinct:
            low = middle
        else:
            high = middle
    return high


def sample_size(outputs: list[float], *, constant: float = 3.0, delta: float = 1e-16) -> int:
    """Samples for the empirical sensitivities by the paper's formula: constant * ln(8 eta_max eta / delta).

    Args:
        outputs: outputs per sample of every layer (channels times positions): eta is their sum, eta_max the largest.
        constant: C of the paper's assumption on the distribution of the shares.
        delta: probability that some sensitivity is too small. Both defaults are those of the published code.
    """
    if not outputs:
        raise ValueError("no layer: at least one is needed")
    return math.ceil(constant * math.log(8 * max(outputs) * sum(outputs) / delta))
