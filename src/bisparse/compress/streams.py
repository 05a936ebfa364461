"""Forward passes side by side: each pauses at chosen modules until all have arrived there.

A layer can be compressed from inputs of the already pruned network without running the model again from its
start for every layer: all calibration batches run at once, one at a time, and stop in front of each chosen
module. While they wait, the layer is solved, and they go on with its new weights. So one pass over the data
serves all layers, in the order of the real forward, whatever the model's code does; what is held are the
activations that the paused calls need.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Spot", "Stream", "Visit", "run_streams"]


@dataclass(frozen=True, slots=True)
class Spot:
    """A place where a tensor passes by: the first input of a module, or its (first) output."""

    module: nn.Module
    side: Literal["input", "output"]


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """A paused call of a module: where a stream waits, and what the module was called with."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Aborted(BaseException):
    """Raised inside a paused stream to unwind it; never leaves this file."""


@dataclass(slots=True, eq=False)
class Stream:
    """One forward pass that can be paused.

    Attributes:
        work: what it runs.
        enter, leave: called before the stream continues and after it has paused or ended (to swap weights).
        number: of its batch, to find the partner in the other network.
        dense: whether it runs the dense network.
        valid: which tokens of its batch are real.
        memory: the last tensor that passed each of the spots to be remembered.
        visit: where it waits, or ``None`` while it runs and after it has ended.
        result: what ``work`` returned.
    """

    work: Callable[[], Any]
    enter: Callable[[], None]
    leave: Callable[[], None]
    number: int = 0
    dense: bool = True
    valid: Tensor | None = None
    memory: dict[Spot, Tensor] = field(default_factory=dict)
    visit: Visit | None = None
    result: Any = None
    _error: BaseException | None = None
    _aborting: bool = False
    _thread: threading.Thread | None = None
    _resume: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _paused: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def advance(self) -> None:
        """Run until the next pause or the end; raises what the model raised."""
        self.visit = None
        try:
            self.enter()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
            else:
                self._resume.release()
            self._paused.acquire()
        finally:
            self.leave()
        if self._error is not None:
            raise self._error

    def pause(self, visit: Visit) -> None:
        """Called by the stream itself: hand control back until the next :meth:`advance`."""
        self.visit = visit
        self._paused.release()
        self._resume.acquire()
        if self._aborting:
            raise _Aborted

    def abort(self) -> None:
        """Unwind the stream if it is paused, and wait for its end."""
        if self._thread is not None and self._thread.is_alive():
            self._aborting = True
            self._resume.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            # Gradient mode belongs to a thread, so that it must be set again here.
            with torch.no_grad():
                self.result = self.work()
        except _Aborted:
            pass
        except BaseException as error:  # handed to the caller of advance()
            self._error = error
        finally:
            self.visit = None
            self._paused.release()


def run_streams(
    streams: Iterable[Stream],
    modules: Iterable[nn.Module],
    at: Callable[[nn.Module, list[Stream]], None],
    order: Callable[[nn.Module], int],
    spots: Iterable[Spot] = (),
) -> None:
    """Run all streams to their ends.

    Whenever all of them wait (or have ended), the earliest module among the waiting ones is served:
    ``at(module, streams waiting there)``, then those streams continue. Only one thread runs at any time.

    Args:
        streams: the forward passes.
        modules: where they pause.
        at: called once per group of paused streams, in the caller's thread.
        order: rank of a module in the forward order.
        spots: places whose tensors every stream remembers.
    """
    streams = list(streams)
    local = threading.local()

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = getattr(local, "stream", None)
        if stream is not None:
            stream.pause(Visit(module, args, kwargs))

    def start(stream: Stream) -> None:
        work = stream.work

        def registered() -> Any:
            local.stream = stream
            return work()

        stream.work = registered
        stream.advance()

    # Remember first: a module that pauses may itself be a spot.
    handles = [_remember(spot, local) for spot in dict.fromkeys(spots)]
    handles += [module.register_forward_pre_hook(hook, with_kwargs=True) for module in dict.fromkeys(modules)]
    try:
        for stream in streams:
            start(stream)
        while waiting := [s for s in streams if s.visit is not None]:
            module = min((s.visit.module for s in waiting if s.visit is not None), key=order)
            group = [s for s in waiting if s.visit is not None and s.visit.module is module]
            at(module, group)
            for stream in group:
                stream.advance()
    finally:
        for handle in handles:
            handle.remove()
        for stream in streams:
            stream.abort()


def _remember(spot: Spot, local: threading.local) -> RemovableHandle:
    """Keep what passes a spot in the memory of the stream that runs."""

    def keep(value: Any) -> None:
        stream = getattr(local, "stream", None)
        value = value[0] if isinstance(value, tuple) and value else value
        if stream is not None and isinstance(value, Tensor):
            stream.memory[spot] = value

    if spot.side == "input":
        return spot.module.register_forward_pre_hook(lambda _, args: keep(args))
    return spot.module.register_forward_hook(lambda *call: keep(call[2]))
