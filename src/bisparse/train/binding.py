"""Where the sparsifier meets an optimizer: hooks around its step."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch.optim import Optimizer

from bisparse.train.attaching import held_weights
from bisparse.train.empty_step import is_empty_step
from bisparse.train.masked_weight import MaskedWeight
from bisparse.train.refresher import Refresher
from bisparse.train.rules import Rule, Update

__all__ = ["Binding", "bare_optimizer"]

_LOG = logging.getLogger(__name__)
_uncompiled: Any = torch.compiler.disable
_STEPS = Optimizer.profile_hook_step.__code__.co_filename  # where every step is wrapped


def bare_optimizer(optimizer: Any) -> Any:
    """The optimizer that updates parameters, out of the wrappers that frameworks put around it."""
    seen = 0
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer) and seen < 8:
        optimizer, seen = inner, seen + 1
    return optimizer


class Binding:
    """Some weights and the optimizer that updates them.

    Before the optimizer's step the parameters become W and the rule changes gradients; after it, the refresher
    counts and may choose new masks, and the parameters become W*E again. A closure is wrapped, so
    that every evaluation sees W*E. A step that is no training (see ``empty_step``) passes untouched. A subclass
    whose step calls ``super().step`` runs hooks twice: the inner run is ignored. Weights of parameter groups that are
    added later, as gradual unfreezing does, are followed from then on. ``torch.compile`` does not look into hooks: it
    would compile them anew at every count and every refresh.

    Args:
        optimizer: anything with ``param_groups``; with step hooks unless ``explicit``.
        groups: weights by index of their parameter group.
        rule: how gradients reach dropped entries.
        refresher: counts steps and chooses new masks.
        explicit: register no hooks; ``finish`` is called after each step instead.
    """

    def __init__(
        self,
        optimizer: Any,
        groups: Mapping[int, Sequence[MaskedWeight]],
        rule: Rule,
        refresher: Refresher,
        *,
        explicit: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.groups: dict[int, Sequence[MaskedWeight]] = {}
        self.explicit = explicit
        self.seconds = 0.0
        self._rule, self._refresher = rule, refresher
        self._take(groups)
        self._revealed = self._skipped = False
        self._depth = 0
        self._caller: FrameType | None = None
        self._silent: set[str] = set()
        self._handles = (
            []
            if explicit
            else [
                optimizer.register_step_pre_hook(_uncompiled(self._before)),
                optimizer.register_step_post_hook(_uncompiled(self._after)),
            ]
        )

    def _take(self, groups: Mapping[int, Sequence[MaskedWeight]]) -> None:
        """Follow weights, by index of their parameter group."""
        self._rule.join(self.optimizer, groups, explicit=self.explicit)
        self.groups.update(groups)
        self.weights = tuple(weight for members in self.groups.values() for weight in members)
        self._known = len(self.optimizer.param_groups)

    def _take_added(self) -> None:
        """Follow weights of parameter groups that are new."""
        if len(self.optimizer.param_groups) > self._known:
            self._take(held_weights(self._refresher.weights, self.optimizer, self._known))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def recover(self) -> None:
        """Mask parameters that a step left as W because it raised."""
        if self._revealed:
            self._hide()

    @torch.no_grad()
    def finish(self) -> None:
        """The explicit form: right after the optimizer's step, make good what it could not see."""
        started = time.perf_counter()
        self._take_added()
        for weight in self.weights:
            weight.follow()
        for update in self._updates(with_gradient=False):
            seen = [weight for weight in update.weights if weight.parameter.grad is not None]
            self._refresher.before_step(seen, update.scale)
            self._rule.catch_up_(update)
        self._close(started)

    @torch.no_grad()
    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._depth and _is_running(self._caller):
            self._depth += 1
            return None
        started = time.perf_counter()
        self.recover()
        self._depth, self._caller = 1, _frame()
        self._take_added()
        self._skipped = is_empty_step(optimizer)
        if self._skipped:
            return None
        for weight in self.weights:
            weight.follow()
            if not self._rule.hides_all:
                weight.check_masked()
        self._reveal()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._apply()
        self.seconds += time.perf_counter() - started
        if closure is None:
            return None
        wrapped = self._masked_closure(closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    @torch.no_grad()
    def _after(self, _optimizer: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._caller = None
        if not self._skipped:
            self._close(time.perf_counter())

    def _close(self, started: float) -> None:
        refreshed = self._refresher.after_step(self.weights, self.optimizer)
        self._hide()
        self.seconds += time.perf_counter() - started
        if refreshed:
            self._refresher.notify()

    def _masked_closure(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        again = False

        def evaluate() -> Any:
            nonlocal again
            with torch.no_grad():
                self._hide()
            loss = closure()
            with torch.no_grad():
                self._reveal()
                self._apply(again=again)
            again = True
            return loss

        return evaluate

    def _masked(self) -> list[MaskedWeight]:
        return [weight for weight in self.weights if not weight.is_dense]

    def _moves(self, weight: MaskedWeight) -> bool:
        """Whether the mask may change after the step that is under way."""
        return self._refresher.schedule.moves(weight.steps + 1)

    def _reveal(self) -> None:
        self._rule.reveal_(self._masked())
        self._revealed = True

    def _hide(self) -> None:
        self._rule.hide_(self._masked())
        self._revealed = False

    def _apply(self, *, again: bool = False) -> None:
        for update in self._updates(with_gradient=True, again=again):
            self._refresher.before_step(update.weights, update.scale)
            self._rule.apply_(update)

    def _updates(self, *, with_gradient: bool, again: bool = False) -> Iterator[Update]:
        """One update for every parameter group that has something to do."""
        for index, members in self.groups.items():
            weights = [w for w in members if not w.is_dense]
            if with_gradient:
                weights = [w for w in weights if self._has_gradient(w)]
            if weights:
                group = self.optimizer.param_groups[index]
                yield Update(
                    weights,
                    group["lr"],
                    float(group.get("weight_decay", 0.0)),
                    bool(group.get("maximize", False)),
                    getattr(self.optimizer, "grad_scale", None),
                    not self._moves(weights[0]),
                    again,
                )

    def _has_gradient(self, weight: MaskedWeight) -> bool:
        """PyTorch's optimizers leave a parameter without gradient alone, weight decay included; so do rules."""
        if weight.parameter.grad is not None:
            return True
        for parameter in weight.learned.values():
            parameter.grad = None  # that of an earlier step: model.zero_grad() does not know it
        if weight.name not in self._silent:
            self._silent.add(weight.name)
            _LOG.warning(
                "%s has no gradient at step %d: the optimizer leaves it alone (no weight decay), and so does the "
                "rule; set its gradient to zeros if it should decay",
                weight.name,
                weight.steps,
            )
        return False


def _frame() -> FrameType | None:
    """The call of the optimizer's step that runs the hook."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename != _STEPS:
        frame = frame.f_back
    return frame


def _is_running(frame: FrameType | None) -> bool:
    """Whether that call is still under way, further up the stack."""
    current: FrameType | None = sys._getframe() if frame is not None else None
    while current is not None and current is not frame:
        current = current.f_back
    return current is not None
