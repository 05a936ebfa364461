"""Swap masked layers for sparse ones where that is faster on this machine."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from bisparse.acceleration.candidates import CANDIDATES, Candidate, Mode
from bisparse.acceleration.choose import choose
from bisparse.acceleration.observe import observe, runner, undisturbed
from bisparse.acceleration.report import AccelerateReport
from bisparse.acceleration.timing import Cold
from bisparse.acceleration.whole import Swap, compare_whole, failure_with, swap_all
from bisparse.machine import busy_note, describe_machine
from bisparse.nn.find_pattern import find_pattern
from bisparse.pattern import NM
from bisparse.weights import Weight, as_rows, find_weights

__all__ = ["Accelerated", "accelerate", "accelerate_"]

Model = TypeVar("Model", bound=nn.Module)
_NOISE = 1.02
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, slots=True)
class Accelerated(Generic[Model]):
    """An accelerated copy and its report."""

    model: Model
    report: AccelerateReport


def accelerate(
    model: Model,
    sample_input: Any,
    *,
    mode: Mode = "inference",
    min_gain: float = 1.05,
    candidates: Iterable[Candidate] = CANDIDATES,
    show: bool = True,
) -> Accelerated[Model]:
    """Measure, then choose: a copy of the model with sparse layers where they are faster on this machine.

    The same as :func:`accelerate_`, on a copy. To save memory, drop the original.
    """
    copied = copy.deepcopy(model)
    report = accelerate_(copied, sample_input, mode=mode, min_gain=min_gain, candidates=candidates, show=show)
    return Accelerated(copied, report)


def accelerate_(
    model: nn.Module,
    sample_input: Any,
    *,
    mode: Mode = "inference",
    min_gain: float = 1.05,
    candidates: Iterable[Candidate] = CANDIDATES,
    show: bool = True,
) -> AccelerateReport:
    """Measure, then choose: swap masked linear layers for sparse ones where they are faster on this machine.
    In place.

    The model runs once on the sample to see with how many tokens each layer is called. Each masked layer is
    then timed at these, dense against every sparse layer that fits: in turn, one call at a time, its weights
    driven out of the caches as far as the rest of the model would do. It is swapped where the sparse layer
    computes the same and its calls together are faster by ``min_gain``. At last the whole sample is timed
    before and after, in turn; where that is slower by more than noise (2%), or fails because the model reads
    what only a dense layer has, everything is put back. Layers of one shape, pattern and use are timed once;
    layers with hooks stay dense. Cost: seconds, and the memory of the packed layers.

    Args:
        model: with masked layers, for example after :func:`bisparse.prune`.
        sample_input: one batch as the model will see it (tensor, tuple, mapping of keywords), or a callable
            that is given the model and runs it, for example one that generates a few tokens.
        mode: ``"inference"``, or ``"training"``: forward and backward on fixed masks (make the optimizer
            afterwards: the kept values of a swapped layer are a new parameter).
        min_gain: dense time over sparse time that is at least wanted.
        candidates: the sparse layers to consider.
        show: print the table.

    Returns:
        The table: layer, shape, tokens, times, choice, reason; and the times of the whole model.

    Raises:
        ValueError: an unknown mode, or ``min_gain`` below 1.
    """
    if mode not in ("inference", "training"):
        raise ValueError(f"mode={mode!r}: use 'inference' or 'training'")
    if not min_gain >= 1.0:
        raise ValueError(f"min_gain={min_gain}: a sparse layer must at least not be slower (1.0)")
    masked, notes = _masked_layers(model)
    run = runner(sample_input, model, mode)
    with undisturbed(model, mode):
        uses = observe(model, {weight.module_name: weight.module for weight, _ in masked}, run)
        cold = Cold(
            sum(p.nbytes for p in model.parameters())
            - max((w.parameter.nbytes for w, _ in masked), default=0)
        )
        choices = choose(masked, uses, tuple(candidates), mode=mode, min_gain=min_gain, cold=cold)
        swaps = [Swap(c.name, c.layer, c.build()) for c in choices if c.chosen is not None]
        put_back = failure_with(model, swaps, run) if swaps else ""
        whole = compare_whole(model, swaps, run) if swaps and not put_back else None
    if whole is not None and whole.sparse_seconds > _NOISE * whole.dense_seconds:
        put_back = "the whole model was not faster"
    if not put_back:
        swap_all(model, swaps)
    report = AccelerateReport(
        layers=tuple(row for choice in choices for row in choice.rows(put_back)),
        mode=mode,
        min_gain=min_gain,
        dense_seconds=None if whole is None else whole.dense_seconds,
        sparse_seconds=None if whole is None else whole.sparse_seconds,
        difference=None if whole is None else whole.difference,
        dense_bytes=sum(_bytes(swap.dense) for swap in swaps),
        sparse_bytes=sum(_bytes(swap.sparse) for swap in swaps),
        put_back=put_back,
        machine=f"{describe_machine()}, {torch.get_num_threads()} threads",
        notes=tuple(filter(None, [*notes, busy_note()])),
    )
    if show:
        print(report)
    return report


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _masked_layers(model: nn.Module) -> tuple[list[tuple[Weight, NM]], list[str]]:
    """Linear layers whose zeros obey a pattern, and what is said about the others."""
    masked: list[tuple[Weight, NM]] = []
    reasons: dict[str, int] = {}
    for weight in find_weights(model, ignore=[]):
        reason = _unfit(weight)
        if not reason:
            matrix = as_rows(weight.parameter.detach(), weight.layout)[0]
            try:
                masked.append((weight, find_pattern(matrix)))
            except ValueError:
                reason = "not N:M sparse"
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    notes = [f"left as they are: {count} ({reason})" for reason, count in reasons.items()]
    return masked, notes


def _unfit(weight: Weight) -> str:
    """Why no sparse layer takes the place of the module of a weight."""
    two_dimensional = isinstance(weight.module, nn.Conv2d) and weight.layout.kind == "conv"
    if (
        weight.layout.kind not in ("linear", "transposed") and not two_dimensional
    ) or weight.layout.parts > 1:
        return f"{weight.layout.kind}: no sparse product"
    if weight.parameter_name != "weight" or isinstance(weight.module, (nn.Embedding, nn.EmbeddingBag)):
        return f"{type(weight.module).__name__}: no sparse product"
    if not weight.module_name:
        return "the model itself: put it into nn.Sequential"
    if any(getattr(weight.module, hooks) for hooks in _HOOKS):
        return "it has hooks, which a sparse layer would not call: remove them first"
    return f"tied to {weight.aliases[0]}" if weight.aliases else ""
