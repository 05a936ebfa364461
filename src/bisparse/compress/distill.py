"""Last stage: all kept weights together, fitted to the dense network's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bisparse.compress.calibration import Call
from bisparse.compress.outputs import output_tensor, split_call, valid_outputs

__all__ = ["Distill", "Distilled"]

_Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def _square(found: Tensor, goal: Tensor) -> Tensor:
    return (found - goal).square()


def _divergence(found: Tensor, goal: Tensor) -> Tensor:
    """KL(goal | found) per sample, from logits."""
    terms = nn.functional.kl_div(
        found.log_softmax(-1), goal.log_softmax(-1), reduction="none", log_target=True
    )
    return terms.sum(-1)


_DISTANCES: dict[str, _Distance] = {"mse": _square, "kl": _divergence}


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """New values by tensor, and the held-out loss before and after."""

    values: dict[Tensor, Tensor]
    loss_before: float
    loss_after: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Distill:
    """Minimise the mean of |pruned(x) - dense(x)|² over calibration inputs x, masks fixed, no labels, by
    Adam.

    Layer-wise methods leave the errors of different layers to add up; this stage lets them cancel. Pruned
    weights, biases and norm parameters move; batch-norm statistics and dropout stay as in evaluation. Inputs
    of floating point are mixed in pairs (mixup), whose dense outputs are computed anew, so that a few hundred
    samples do not get learnt by heart. A share of the calibration data is held out: the result is kept only
    where it lowers their loss. Cost about ``4 * epochs`` forward passes. Source: Hinton et al. 2015; mixup:
    Zhang et al., ICLR 2018.

    Attributes:
        loss: ``"mse"``, squared distance of the outputs; ``"kl"``, Kullback-Leibler divergence of their
            softmax over the last axis; ``"auto"``: ``"kl"`` where the inputs are token ids (language models),
            else ``"mse"``, which does not fade where a classifier is sure of its training images.
        epochs: passes over the calibration data; 0 switches the stage off.
        rate: Adam's first learning rate, falling to zero as a half cosine.
        batch: samples per step (calibration batches are split, never joined).
        mixup: largest share of the second input of a pair; 0 = inputs as they are.
        held_out: share of the samples that decide whether the result is kept.
    """

    loss: str = "auto"
    epochs: int = 10
    rate: float = 1e-3
    batch: int = 32
    mixup: float = 0.5
    held_out: float = 0.1

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
        student = _Student(model, values, masks)
        distance = self._distance(pieces)
        before = _loss(student, model, test, distance)
        self._fit(student, model, train, generator)
        after = _loss(student, model, test, distance)
        kept = after < before
        return Distilled(student.values() if kept else dict(values), before, after, kept)

    def _fit(
        self, student: _Student, model: nn.Module, pieces: Sequence[Call], generator: torch.Generator
    ) -> None:
        distance = self._distance(pieces)
        optimizer = torch.optim.Adam(student.parameters(), lr=self.rate)
        total = self.epochs * len(pieces)
        for step, call in enumerate(_epochs(pieces, self.epochs, generator)):
            for group in optimizer.param_groups:
                group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * step / total))
            call = _mixed(call, self.mixup, generator)
            with torch.no_grad():
                goal = valid_outputs(output_tensor(call.run(model)), call.valid)
            with torch.enable_grad():
                found = valid_outputs(output_tensor(student.run(call)), call.valid)
                loss = distance(found.float(), goal.float()).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _distance(self, pieces: Sequence[Call]) -> _Distance:
        if self.loss not in ("auto", *_DISTANCES):
            raise ValueError(f"unknown loss {self.loss!r}: use auto, {', '.join(_DISTANCES)}")
        if self.loss != "auto":
            return _DISTANCES[self.loss]
        first = next(
            (v for v in (*pieces[0].args, *pieces[0].kwargs.values()) if isinstance(v, Tensor)), None
        )
        return _DISTANCES["mse" if first is None or first.is_floating_point() else "kl"]


class _Student:
    """The pruned network as a function of its trainable values; the model itself keeps the dense ones."""

    def __init__(
        self, model: nn.Module, values: Mapping[Tensor, Tensor], masks: Mapping[Tensor, Tensor]
    ) -> None:
        self._model = model
        self._masks = dict(masks)
        self._names: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
        self._fixed = {t: v for t, v in values.items() if not isinstance(t, nn.Parameter)}
        moving: dict[Tensor, Tensor] = {t: v for t, v in values.items() if isinstance(t, nn.Parameter)}
        for parameter in model.parameters():
            if parameter.dim() == 1 and parameter.is_floating_point():
                moving.setdefault(parameter, parameter.data)
        # Trained in float32 whatever the model's dtype: updates of 1e-4 vanish in bfloat16.
        self._masters = {t: v.detach().float().clone().requires_grad_(True) for t, v in moving.items()}

    def parameters(self) -> list[Tensor]:
        return list(self._masters.values())

    def _value(self, tensor: Tensor) -> Tensor:
        master = self._masters[tensor]
        mask = self._masks.get(tensor)
        return (master if mask is None else master * mask).to(tensor.dtype)

    def run(self, call: Call) -> Any:
        worn = {
            name: self._value(t) if t in self._masters else self._fixed[t]
            for name, t in self._names.items()
            if t in self._masters or t in self._fixed
        }
        return torch.func.functional_call(self._model, worn, call.args, dict(call.kwargs))

    def values(self) -> dict[Tensor, Tensor]:
        return self._fixed | {tensor: self._value(tensor).detach() for tensor in self._masters}


def _epochs(pieces: Sequence[Call], epochs: int, generator: torch.Generator) -> Iterator[Call]:
    for _ in range(epochs):
        for index in torch.randperm(len(pieces), generator=generator).tolist():
            yield pieces[index]


def _mixed(call: Call, share: float, generator: torch.Generator) -> Call:
    """Every sample of a single floating-point input mixed with another sample of its batch."""
    if not share or len(call.args) != 1 or call.kwargs or not isinstance(call.args[0], Tensor):
        return call
    inputs = call.args[0]
    if not inputs.is_floating_point() or len(inputs) < 2:
        return call
    weight = share * torch.rand((len(inputs),) + (1,) * (inputs.dim() - 1), generator=generator)
    other = inputs[torch.randperm(len(inputs), generator=generator).to(inputs.device)]
    return Call((inputs.lerp(other, weight.to(inputs)),), call.kwargs, call.valid)


@torch.no_grad()
def _loss(student: _Student, model: nn.Module, calls: Sequence[Call], distance: _Distance) -> float:
    """Mean distance over all samples."""
    total, count = 0.0, 0
    for call in calls:
        found = valid_outputs(output_tensor(student.run(call)), call.valid)
        goal = valid_outputs(output_tensor(call.run(model)), call.valid)
        distances = distance(found.double(), goal.double())
        total, count = total + float(distances.sum()), count + distances.numel()
    return total / max(count, 1)
