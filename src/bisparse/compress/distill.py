"""Last stage: all kept weights together, fitted to what the dense network computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call
from bisparse.compress.distance import relative_distance
from bisparse.compress.hidden import HiddenStates, hidden_distance, layers_with_weights, run_recorded
from bisparse.compress.outputs import real_outputs, split_call
from bisparse.compress.student import Student
from bisparse.mixup import mix_pairs

__all__ = ["Distill", "Distilled"]

_Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def _divergence(found: Tensor, goal: Tensor) -> Tensor:
    """Mean KL(goal | found), from logits."""
    terms = nn.functional.kl_div(
        found.log_softmax(-1), goal.log_softmax(-1), reduction="none", log_target=True
    )
    return terms.sum(-1).mean()


_DISTANCES: dict[str, _Distance] = {"mse": relative_distance, "kl": _divergence}


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """New values by tensor, and the held-out loss before and after."""

    values: dict[Tensor, Tensor]
    loss_before: float
    loss_after: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Distill:
    """Minimise the distance of the pruned network's outputs and hidden states from the dense network's, masks
    fixed, no labels, by Adam.

    Layer-wise methods leave the errors of different layers to add up; this stage lets them cancel. Pruned
    weights, biases and norm parameters move; batch-norm statistics and dropout stay as in evaluation. Hidden
    states are the inputs of all layers with weights: a few hundred samples say little about a network through
    its outputs, and much through what every layer receives. Inputs of floating point are mixed in pairs
    (mixup), whose dense outputs are computed anew, so that the samples do not get learnt by heart. A share of
    the calibration data is held out: the result is kept only where it lowers the distance of their outputs.
    Cost about 4 forward passes per epoch. Source: Hinton et al. 2015; hidden states: Romero et al.,
    "FitNets", ICLR 2015; mixup: Zhang et al., ICLR 2018.

    Attributes:
        loss: of the outputs: ``"mse"``, relative squared distance; ``"kl"``, Kullback-Leibler divergence of
            their softmax over the last axis; ``"auto"``: ``"kl"`` where the inputs are token ids (language
            models), else ``"mse"``, which does not fade where a classifier is sure of its training images.
        hidden: weight of the mean relative squared distance of the hidden states; 0 = outputs alone.
        epochs: passes over the calibration data; 0 switches the stage off.
        min_steps: steps of Adam at least; small calibration sets are passed more often.
        rate: Adam's first learning rate, falling to zero as a half cosine.
        batch: samples per step (calibration batches are split, never joined).
        mixup: largest share of the second input of a pair; 0 = inputs as they are.
        held_out: share of the samples that decide whether the result is kept.

    Raises:
        ValueError: an option out of its range.
    """

    loss: str = "auto"
    hidden: float = 40.0
    epochs: int = 12
    min_steps: int = 300
    rate: float = 2e-3
    batch: int = 32
    mixup: float = 0.5
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if self.loss not in ("auto", *_DISTANCES):
            raise ValueError(f"unknown loss {self.loss!r}: use auto, {', '.join(_DISTANCES)}")
        least = {"hidden": 0.0, "epochs": 0, "min_steps": 0, "batch": 1}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name}={getattr(self, name)}: must be {bound} or more")
        if not self.rate > 0.0:
            raise ValueError(f"rate={self.rate}: must be above 0")
        if not (0.0 <= self.mixup <= 1.0 and 0.0 < self.held_out < 1.0):
            raise ValueError(
                f"mixup={self.mixup}, held_out={self.held_out}: shares, held_out strictly between 0 and 1"
            )

    def __call__(
        self,
        model: nn.Module,
        values: Mapping[Tensor, Tensor],
        masks: Mapping[Tensor, Tensor],
        calls: Sequence[Call],
        seed: int,
    ) -> Distilled:
        """Fit.

        Args:
            model: the dense model in evaluation mode; not changed.
            values: new values (pruned weights, biases) by parameter or buffer.
            masks: boolean mask by parameter.
            calls: calibration.
            seed: of shuffling and mixing.

        Returns:
            The values to use: fitted ones where the held-out loss fell, else those given.
        """
        generator = torch.Generator().manual_seed(seed)
        pieces = [piece for call in calls for piece in split_call(call, self.batch)]
        order = torch.randperm(len(pieces), generator=generator).tolist()
        count = max(1, round(self.held_out * len(pieces)))
        test = [pieces[i] for i in order[:count]]
        train = [pieces[i] for i in order[count:]] or test
        student, distance = Student(model, values, masks), self._distance(pieces)
        goals = [real_outputs(call, call.run(model)) for call in test]
        before = _loss(student, test, goals, distance)
        self._fit(student, model, train, distance, generator)
        after = _loss(student, test, goals, distance)
        kept = after < before
        return Distilled(student.values() if kept else dict(values), before, after, kept)

    def _fit(
        self,
        student: Student,
        model: nn.Module,
        pieces: Sequence[Call],
        distance: _Distance,
        generator: torch.Generator,
    ) -> None:
        layers = layers_with_weights(model) if self.hidden else []
        moving = student.parameters()
        fused = all(tensor.device.type in ("cpu", "cuda") for tensor in moving)
        optimizer = torch.optim.Adam(moving, lr=self.rate, fused=fused)
        total = max(self.epochs * len(pieces), self.min_steps)
        for step, piece in enumerate(islice(_shuffled(pieces, generator), total)):
            for group in optimizer.param_groups:
                group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * step / total))
            call = _mixed(piece, self.mixup, generator)
            with torch.no_grad():
                goal = run_recorded(layers, partial(call.run, model))
            with torch.enable_grad():
                found = run_recorded(layers, partial(student.run, call))
                loss = distance(real_outputs(call, found[0]), real_outputs(call, goal[0]))
                loss = loss + self._hidden_loss(found[1], goal[1], call)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _hidden_loss(self, found: HiddenStates, goal: HiddenStates, call: Call) -> Tensor | float:
        distance = hidden_distance(found, goal, call.valid)
        return 0.0 if distance is None else self.hidden * distance

    def _distance(self, pieces: Sequence[Call]) -> _Distance:
        if self.loss != "auto":
            return _DISTANCES[self.loss]
        first = next(
            (v for v in (*pieces[0].args, *pieces[0].kwargs.values()) if isinstance(v, Tensor)), None
        )
        return _DISTANCES["mse" if first is None or first.is_floating_point() else "kl"]


def _shuffled(pieces: Sequence[Call], generator: torch.Generator) -> Iterator[Call]:
    """All pieces in random order, again and again."""
    while True:
        for index in torch.randperm(len(pieces), generator=generator).tolist():
            yield pieces[index]


def _mixed(call: Call, share: float, generator: torch.Generator) -> Call:
    """Every sample of a single floating-point input mixed with another sample of its batch."""
    if not share or len(call.args) != 1 or call.kwargs or not isinstance(call.args[0], Tensor):
        return call
    inputs = call.args[0]
    if not inputs.is_floating_point() or len(inputs) < 2:
        return call
    return Call((mix_pairs(inputs, share, generator).inputs,), call.kwargs, call.valid)


@torch.no_grad()
def _loss(student: Student, calls: Sequence[Call], goals: Sequence[Tensor], distance: _Distance) -> float:
    """Mean distance over all samples."""
    total, count = 0.0, 0
    for call, goal in zip(calls, goals, strict=True):
        total += len(goal) * float(distance(real_outputs(call, student.run(call)), goal))
        count += len(goal)
    return total / max(count, 1)
