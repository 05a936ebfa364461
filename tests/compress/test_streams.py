from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from bisparse.compress.overlay import Overlay
from bisparse.compress.streams import Stream, run_streams


def nothing():
    return None


def streams_of(model, batches):
    return [Stream(lambda x=x: model(x), nothing, nothing, number) for number, x in enumerate(batches)]


def test_all_streams_meet_at_every_module_in_order():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    batches = [torch.randn(3, 2) for _ in range(4)]
    seen = []
    streams = streams_of(model, batches)
    run_streams(
        streams,
        [model[0], model[2]],
        lambda module, group: seen.append((list(model).index(module), [s.number for s in group])),
        lambda module: list(model).index(module),
    )
    assert seen == [(0, [0, 1, 2, 3]), (2, [0, 1, 2, 3])]
    with torch.no_grad():
        assert all(torch.equal(s.result, model(x)) for s, x in zip(streams, batches, strict=True))
    assert not any(s.result.requires_grad for s in streams)


class Branching(nn.Module):
    """Positive batches take the first layer, others skip it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.first(x) if x.sum() > 0 else x)


def test_streams_that_skip_a_module_wait_for_the_others():
    model = Branching()
    seen = []
    order = {model.first: 0, model.last: 1}
    run_streams(
        streams_of(model, [torch.ones(1, 2), -torch.ones(1, 2)]),
        list(order),
        lambda module, group: seen.append((order[module], [s.number for s in group])),
        order.__getitem__,
    )
    assert seen == [(0, [0]), (1, [0, 1])]


@pytest.mark.parametrize("culprit", ["model", "at"])
def test_errors_reach_the_caller_and_leave_no_thread_or_hook(culprit):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    batches = [torch.randn(3, 2), torch.randn(3, 2 if culprit == "at" else 5), torch.randn(3, 2)]
    before = set(threading.enumerate())

    def at(module, group):
        if culprit == "at":
            raise RuntimeError("solver failed")

    with pytest.raises(RuntimeError, match="solver failed" if culprit == "at" else "shapes"):
        run_streams(streams_of(model, batches), list(model), at, lambda module: 0)
    assert set(threading.enumerate()) <= before
    assert not model[0]._forward_pre_hooks


def test_overlay_is_seen_only_while_worn():
    tensor = nn.Parameter(torch.zeros(2))
    overlay = Overlay()
    overlay.put(tensor, torch.ones(2, dtype=torch.float64))
    assert tensor.tolist() == [0, 0]
    with overlay.worn():
        assert tensor.tolist() == [1, 1]
    assert tensor.tolist() == [0, 0]
    overlay.commit()
    assert tensor.tolist() == [1, 1]
    assert tensor.dtype == torch.float32
    with pytest.raises(ValueError, match=r"\(3,\)"):
        overlay.put(tensor, torch.ones(3))


class Interrupting(torch.Tensor):
    """A value whose first copy is interrupted, as by Ctrl-C."""

    armed = True

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.copy_ and cls.armed:
            cls.armed = False
            raise KeyboardInterrupt
        return super().__torch_function__(func, types, args, kwargs or {})


def test_an_interrupted_commit_leaves_nothing_half_done():
    tensors = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    overlay = Overlay()
    for tensor in tensors:
        overlay.put(tensor, torch.ones(2))
    overlay._new[tensors[1]] = torch.ones(2).as_subclass(Interrupting)
    with pytest.raises(KeyboardInterrupt):
        overlay.commit()
    assert [tensor.tolist() for tensor in tensors] == [[1, 1]] * 3


def test_an_interrupted_change_of_clothes_is_undone(monkeypatch):
    tensor = nn.Parameter(torch.zeros(2))
    overlay = Overlay()
    overlay.put(tensor, torch.ones(2))
    enter = Overlay.enter

    def interrupted(self):
        enter(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Overlay, "enter", interrupted)
    with pytest.raises(KeyboardInterrupt), overlay.worn():
        pass
    assert tensor.tolist() == [0, 0]
    stream = Stream(nothing, overlay.enter, overlay.leave)
    with pytest.raises(KeyboardInterrupt):
        stream.advance()
    assert tensor.tolist() == [0, 0]
