"""The theorems as checks: whether each applies to this network, how far it is off, and what explains the rest.

Let r = y - f(X), g the gradient of |r|²/(2 n) + λ/2 |θ|², J the Jacobian, Φ the last layer's features. Every
identity holds at stationary points (g = 0); away from them its deviation is a known function of g. Taking that
off (``certified``) leaves rounding errors only, so that a check never needs exact stationarity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse.kernel_theory.evidence import Evidence, Side
from bisparse.kernel_theory.features import LastLayer

__all__ = ["Statement", "all_statements"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One theorem, held against one network.

    Attributes:
        name: short name.
        claim: its formula.
        applies: whether its conditions hold here.
        error: relative deviation on the training examples; ``None`` where it cannot be computed.
        error_held_out: the same on held-out examples.
        certified: what remains, on all examples, after the deviation that the gradient predicts is taken off.
        reason: why it does not apply, or what to mind where it does.
    """

    name: str
    claim: str
    applies: bool
    error: float | None = None
    error_held_out: float | None = None
    certified: float | None = None
    reason: str = ""


def _relative(difference: Tensor, scale: Tensor) -> float:
    return float(difference.norm()) / max(float(scale.norm()), 1e-300)


def _compared(
    evidence: Evidence,
    name: str,
    claim: str,
    predict: Callable[[Side], Tensor],
    deviation: Callable[[Side], Tensor] | None,
    reason: str = "",
) -> Statement:
    """The network against a predictor, minus the deviation that the gradient predicts."""
    errors, rest = [], []
    for side in evidence.sides:
        difference = side.outputs - predict(side)
        errors.append(_relative(difference, side.outputs))
        if deviation is not None:
            rest.append(_relative(difference - deviation(side), side.outputs))
    held_out = errors[1] if len(errors) > 1 else None
    return Statement(name, claim, True, errors[0], held_out, max(rest, default=None), reason)


def _all(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _needs_penalty(evidence: Evidence) -> str:
    return "" if evidence.penalty > 0 else "no penalty was given (penalty=)"


def _needs_no_penalty(evidence: Evidence) -> str:
    return "" if evidence.penalty == 0 else "there is a penalty: the ridge identities take its place"


def _needs_squares(evidence: Evidence) -> str:
    return "" if evidence.loss == "squared" else "holds for the squared loss, this is cross-entropy"


def _needs_full(evidence: Evidence) -> str:
    return (
        "" if evidence.full else "needs all pairs of outputs: outputs='full', fewer examples or more memory"
    )


def _needs_last(evidence: Evidence) -> str:
    return evidence.last if isinstance(evidence.last, str) else evidence.last.flaw


def _projection(evidence: Evidence) -> Statement:
    name, claim = "projection", "f(X) = projection of y onto range H"
    last = evidence.last
    reason = _all(_needs_squares(evidence), _needs_no_penalty(evidence), _needs_last(evidence))
    if reason or evidence.H is None or not isinstance(last, LastLayer):
        return Statement(name, claim, False, reason=reason)
    features = evidence.train.features
    assert features is not None
    difference = evidence.train.outputs - evidence.H.project(evidence.targets)
    # f lies in range Φ up to a frozen bias, so the deviation is the projection of -r, and n g = -Φᵀ r.
    inverse = torch.linalg.pinv(features.T, rtol=evidence.H.rtol**0.5)  # of Φᵀ, so that nothing is squared
    predicted = evidence.count * (inverse @ evidence.last_layer_gradient())
    scale = evidence.targets
    return Statement(
        name, claim, True, _relative(difference, scale), None, _relative(difference - predicted, scale)
    )


def _residual(evidence: Evidence) -> Statement:
    name, claim = "residual", "K r = 0"
    reason = _all(_needs_full(evidence), _needs_no_penalty(evidence))
    if reason:
        return Statement(name, claim, False, reason=reason)
    r = evidence.residual.flatten()
    energy = float(r @ evidence.train.K @ r) / max(evidence.K.trace * float(r @ r), 1e-300)
    image = evidence.train.K @ r
    predicted = -evidence.count * evidence.train.along_gradient.flatten()
    scale = float(evidence.K.values[0]) * float(r.norm())
    rest = float((image - predicted).norm()) / max(scale, 1e-300)
    note = "K is nonsingular: every stationary point interpolates" if evidence.K.rank == len(r) else ""
    return Statement(name, claim, True, max(energy, 0.0) ** 0.5, None, rest, note)


def _ridge_last(evidence: Evidence) -> Statement:
    name, claim = "ridge, last layer", "f(x) = H(x,X)(H + nλ)⁻¹ y"
    reason = _all(_needs_squares(evidence), _needs_penalty(evidence), _needs_last(evidence))
    if reason or evidence.H is None:
        return Statement(name, claim, False, reason=reason)
    features, penalty, count = evidence.train.features, evidence.penalty, evidence.count
    assert features is not None
    coefficients = features.T @ evidence.H.solve(evidence.targets, count * penalty)
    gram = features.T @ features / count
    inner = torch.linalg.solve(
        gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device),
        evidence.last_layer_gradient(),
    )
    return _compared(
        evidence, name, claim, lambda side: _read(side) @ coefficients, lambda side: _read(side) @ inner
    )


def _read(side: Side) -> Tensor:
    assert side.features is not None
    return side.features


def _ridge_all(evidence: Evidence) -> Statement:
    degree = evidence.scaling.degree
    shown = "L" if degree is None else f"{degree:g}"
    name, claim = "ridge, all layers", f"f(x) = K(x,X)(K + {shown}nλ)⁻¹ y"
    reason = _all(
        _needs_squares(evidence), _needs_penalty(evidence), _needs_full(evidence), evidence.scaling.reason
    )
    if reason or degree is None:
        return Statement(name, claim, False, reason=reason)
    ridge = degree * evidence.count * evidence.penalty
    solved = evidence.K.solve(evidence.targets.reshape(-1, 1), ridge)
    moved = evidence.K.solve(evidence.train.along_gradient.reshape(-1, 1), ridge)
    scale = degree * evidence.penalty

    def deviation(side: Side) -> Tensor:
        return (side.along_gradient - _shaped(side, side.K @ moved)) / scale

    return _compared(evidence, name, claim, lambda side: _shaped(side, side.K @ solved), deviation)


def _representer(evidence: Evidence) -> Statement:
    degree = evidence.scaling.degree
    shown = "L" if degree is None else f"{degree:g}"
    name, claim = "representer", f"f(x) = K(x,X) r / ({shown}nλ)"
    reason = _all(_needs_penalty(evidence), _needs_full(evidence), evidence.scaling.reason)
    if reason or degree is None:
        return Statement(name, claim, False, reason=reason)
    scale = degree * evidence.penalty
    r = evidence.residual.reshape(-1, 1) / (scale * evidence.count)
    return _compared(
        evidence,
        name,
        claim,
        lambda side: _shaped(side, side.K @ r),
        lambda side: side.along_gradient / scale,
        "holds for any loss; r = y - softmax(f) for cross-entropy",
    )


def _ridgeless(evidence: Evidence) -> Statement:
    name, claim = "ridgeless limit", "f(x) -> K(x,X) K⁺ y as λ -> 0"
    reason = _all(
        _needs_squares(evidence), _needs_penalty(evidence), _needs_full(evidence), evidence.scaling.reason
    )
    if reason:
        return Statement(name, claim, False, reason=reason)
    solved = evidence.K.solve(evidence.targets.reshape(-1, 1))
    note = "a limit: the error is how far this penalty is from it"
    return _compared(evidence, name, claim, lambda side: _shaped(side, side.K @ solved), None, note)


def _shaped(side: Side, flat: Tensor) -> Tensor:
    return flat.reshape(side.outputs.shape)


def all_statements(evidence: Evidence) -> tuple[Statement, ...]:
    """Every theorem, in the order in which the documents explain them."""
    checks = (_projection, _residual, _ridge_last, _ridge_all, _representer, _ridgeless)
    return tuple(check(evidence) for check in checks)
