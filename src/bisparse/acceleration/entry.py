"""Swap masked layers for sparse ones where that is faster on this machine."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from bisparse.acceleration.candidates import CANDIDATES, Candidate, Mode
from bisparse.acceleration.choose import choose
from bisparse.acceleration.masked import masked_layers
from bisparse.acceleration.observe import observe, runner, undisturbed
from bisparse.acceleration.report import AccelerateReport
from bisparse.acceleration.timing import Cold
from bisparse.acceleration.whole import Swap, compare_whole, failure_with, swap_all
from bisparse.machine import busy_note, describe_machine

__all__ = ["Accelerated", "accelerate", "accelerate_"]

Model = TypeVar("Model", bound=nn.Module)
_NOISE = 1.02


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
    masks: Mapping[str, Tensor] | None = None,
    candidates: Iterable[Candidate] = CANDIDATES,
    show: bool = True,
) -> Accelerated[Model]:
    """Measure, then choose: a copy of the model with sparse layers where they are faster on this machine.

    The same as :func:`accelerate_`, on a copy. To save memory, drop the original.
    """
    copied = copy.deepcopy(model)
    report = accelerate_(
        copied, sample_input, mode=mode, min_gain=min_gain, masks=masks, candidates=candidates, show=show
    )
    return Accelerated(copied, report)


def accelerate_(
    model: nn.Module,
    sample_input: Any,
    *,
    mode: Mode = "inference",
    min_gain: float = 1.05,
    masks: Mapping[str, Tensor] | None = None,
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
        masks: what each weight keeps, by parameter name, as in ``Sparsifier.masks``. Without one the non-zeros of a
            weight count: in training, what is kept but happens to be 0 is then lost, and learns no more.
        candidates: the sparse layers to consider.
        show: print the table.

    Returns:
        The table: layer, shape, tokens, times, choice, reason; and the times of the whole model.

    Raises:
        ValueError: an unknown mode, ``min_gain`` below 1, or masks that do not fit the model.
    """
    if mode not in ("inference", "training"):
        raise ValueError(f"mode={mode!r}: use 'inference' or 'training'")
    if not min_gain >= 1.0:
        raise ValueError(f"min_gain={min_gain}: a sparse layer must at least not be slower (1.0)")
    masked, notes = masked_layers(model, masks)
    run = runner(sample_input, model, mode)
    with undisturbed(model, mode):
        uses = observe(model, {each.weight.module_name: each.weight.module for each in masked}, run)
        cold = Cold(
            sum(p.nbytes for p in model.parameters())
            - max((each.weight.parameter.nbytes for each in masked), default=0)
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
