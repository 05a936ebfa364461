"""Layers of a pruned network beside those of its teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.filters.networks import NETWORKS
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import bisparse as bs
from bisparse.compress.hidden import run_recorded
from bisparse.filters import apply_plan
from bisparse.filters.removal import mask_removed_
from bisparse.train.distillation import Distillation
from bisparse.train.hidden_hints import hint_distance, layer_pairs


class Net(nn.Module):
    """A residual sum, a depthwise convolution, a flattened classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.depth, self.point = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(12 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.body(x).relu()
        x = self.point(self.depth(x).relu()).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


@pytest.fixture
def teacher() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pruned(teacher, images):
    return bs.prune_filters(teacher, "params:0.6", calibration=[images], scores="l1", latency=False)


def test_channels_are_those_that_the_plan_kept(teacher, images, pruned):
    kept = pruned.report.plan.kept
    pairs = {pair.teacher: pair for pair in layer_pairs(pruned.model, teacher, kept)}
    assert pairs[teacher.stem].channels is None
    names = {"body": 1, "depth": 0, "point": 1, "head": 1}
    for name, dim in names.items():
        assert pairs[teacher.get_submodule(name)].channels.tolist() == list(kept[f"{name}.weight"][dim])
    assert [pairs[teacher.get_submodule(name)].dim for name in names] == [-3, -3, -3, -1]


def test_distance_by_hand(teacher, images, pruned):
    pairs = layer_pairs(pruned.model, teacher, pruned.report.plan.kept)
    with torch.no_grad():
        _, found = run_recorded([p.own for p in pairs], lambda: pruned.model(images))
        _, goal = run_recorded([p.teacher for p in pairs], lambda: teacher(images))
    terms = []
    for name in ("body", "depth", "point", "head"):
        ids = pruned.report.plan.kept[f"{name}.weight"][0 if name == "depth" else 1]
        theirs = goal[teacher.get_submodule(name)][0][:, list(ids)]
        mine = found[pruned.model.get_submodule(name)][0]
        terms.append(float((mine - theirs).square().sum() / theirs.square().sum()))
    assert float(hint_distance(pairs, found, goal)) == pytest.approx(sum(terms) / 4, rel=1e-5)
    assert terms[0] < 1e-12 < terms[1]  # the first removal loses nothing of what it keeps


def test_the_loss_grows_by_the_distance_and_teaches_hidden_layers(teacher, images, pruned):
    kept, labels = pruned.report.plan.kept, torch.zeros(24, dtype=torch.int64)
    model = pruned.model.train()
    plain, taught = (
        Distillation(teacher, hidden=h, kept=kept)(model, (images, labels)).loss for h in (0.0, 5.0)
    )
    pairs = layer_pairs(model, teacher, kept)
    _, found = run_recorded([p.own for p in pairs], lambda: model(images))
    _, goal = run_recorded([p.teacher for p in pairs], lambda: teacher(images))
    assert (taught - plain).item() == pytest.approx(5.0 * hint_distance(pairs, found, goal).item(), rel=1e-4)
    before = hint_distance(pairs, found, goal).item()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        Distillation(teacher, hidden=5.0, kept=kept)(model, (images, labels)).loss.backward()
        optimizer.step()
    _, found = run_recorded([p.own for p in pairs], lambda: model(images))
    assert hint_distance(pairs, found, goal).item() < 0.5 * before
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(m._forward_pre_hooks for net in (model, teacher) for m in net.modules())


class Wrapper(nn.Module):
    """As DistributedDataParallel holds what it wraps."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class Groups(nn.Module):
    """A convolution in groups, between images and a classifier; as many filters per channel as asked for."""

    def __init__(self, width: int, groups: int, filters: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 1)
        self.grouped = nn.Conv2d(width, width * filters, 3, padding=1, groups=groups)
        self.head = nn.Linear(width * filters, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.first(x).relu()).relu().mean((2, 3)))


class Own(nn.Module):
    """A linear layer that is no nn.Linear."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features, self.weight = inputs, nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


class Words(nn.Module):
    """The embedding is the classifier, and loses columns."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(20, 16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(self.up(self.embedding(x)).relu()).relu())


def own_kinds() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), Own(24, 16), nn.ReLU(), nn.Linear(16, 5))


KINDS = {
    **{name: (kind, shape, 0) for name, (kind, shape) in NETWORKS.items()},
    "groups": (lambda: Groups(16, 4), (3, 8, 8), 0),
    "two filters for each channel": (lambda: Groups(16, 16, 2), (3, 8, 8), 0),
    "one channel left": (lambda: Groups(4, 4), (3, 8, 8), 0),
    "own kinds": (own_kinds, (12,), 1),
    "tied embedding": (Words, (6,), 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_goal_is_what_the_masked_teacher_receives(name):
    """Zeros in place of what was removed change no kept channel, whatever reads it."""
    make, shape, skipped = KINDS[name]
    torch.manual_seed(0)
    teacher, x = make().eval(), torch.randn(8, *shape)
    x = torch.randint(20, (8, *shape)) if name == "tied embedding" else x
    budget = "params:0.4" if name == "one channel left" else "params:0.6"
    found = bs.prune_filters(teacher, budget, calibration=[x], scores="l1", latency=False)
    masked = mask_removed_(copy.deepcopy(teacher), found.report.plan)
    pairs = layer_pairs(found.model, masked, found.report.plan.kept)
    with torch.no_grad():
        _, seen = run_recorded([p.own for p in pairs], lambda: found.model(x))
        _, goal = run_recorded([p.teacher for p in pairs], lambda: masked(x))
    different = 0
    for one in pairs:
        for mine, theirs in zip(seen.get(one.own, []), map(one.goal, goal.get(one.teacher, [])), strict=True):
            different += mine.shape != theirs.shape
            if mine.shape == theirs.shape:
                torch.testing.assert_close(mine, theirs)
    assert different == skipped
    assert sum(p.channels is not None for p in pairs) > 0
    if name == "one channel left":
        assert found.model.grouped.in_channels == 1


def test_wrappers_are_no_part_of_names():
    """Of a network whose root has a weight, of one that is a single layer, and of plans made for a wrapped one."""

    class Root(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
            self.token = nn.Parameter(torch.ones(1, 4))

    for make in (Root, lambda: nn.Linear(4, 4)):
        model, teacher = Wrapper(make()), make()
        assert {pair.teacher for pair in layer_pairs(model, teacher, {})} <= set(teacher.modules())
    root = Root()
    assert layer_pairs(Wrapper(Root()), root, {})[0].teacher is root
    regional = Root()
    regional[2] = torch.compile(regional[2], backend="eager")
    assert layer_pairs(regional, root, {})[-1].teacher is root[2]
    torch.manual_seed(0)
    wrapped, images = Wrapper(Net()).eval(), torch.randn(4, 3, 8, 8)
    found = bs.prune_filters(wrapped, "params:0.6", calibration=[images], scores="l1", latency=False)
    pairs = layer_pairs(found.model, wrapped, found.report.plan.kept)
    assert [pair.channels is not None for pair in pairs] == [False, True, True, True, True]


def test_a_parametrized_layer_is_a_layer(teacher, images, pruned):
    labels = torch.zeros(24, dtype=torch.int64)
    objective = Distillation(teacher, hidden=5.0, kept=pruned.report.plan.kept)
    model = pruned.model.train()
    expected = objective(model, (images, labels)).loss
    weight_norm(model.body)
    torch.testing.assert_close(objective(model, (images, labels)).loss, expected)


def test_a_silent_layer_of_the_teacher_does_not_outweigh_all_others(teacher, images, pruned):
    with torch.no_grad():
        teacher.depth.bias.fill_(-1e6)  # nothing passes the ReLU behind it
    objective = Distillation(teacher, hidden=5.0, kept=pruned.report.plan.kept)
    loss = objective(pruned.model.train(), (images, torch.zeros(24, dtype=torch.int64))).loss
    assert loss < 100.0
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in pruned.model.parameters())


def test_a_weight_without_anything_to_compare_is_refused():
    """Two truly sparse or hand-written layers, say: the weight would do nothing."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    batch = torch.randn(3, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"no layer receives .* nor truly sparse ones, nor your own kinds"):
        Distillation(Scale().eval(), hidden=1.0)(Scale().train(), batch)
    assert Distillation(Scale().eval())(Scale().train(), batch).loss.isfinite()


def test_wrappers_and_whole_networks(teacher):
    """Nothing removed: an N:M network, say; a wrapped model has the names of what it wraps."""

    model = Wrapper(copy.deepcopy(teacher))
    pairs = layer_pairs(model, teacher, {})
    assert [pair.teacher for pair in pairs] == [
        teacher.stem, teacher.body, teacher.depth, teacher.point, teacher.head
    ]  # fmt: skip
    assert layer_pairs(nn.Linear(3, 2), nn.Linear(3, 2), {})[0].channels is None
    assert layer_pairs(nn.Linear(2, 2), nn.Linear(3, 2), {"weight": {1: (0, 2)}})[0].channels.tolist() == [
        0,
        2,
    ]


def test_examples_without_a_batch_dimension_and_transformers_convolutions():
    conv = layer_pairs(nn.Conv1d(2, 4, 3), nn.Conv1d(3, 4, 3), {"weight": {1: (0, 2)}})[0]
    state = torch.arange(15.0).view(3, 5)
    assert torch.equal(conv.goal(state), state[[0, 2]])
    assert torch.equal(conv.goal(state[None]), state[None, [0, 2]])
    transformers = pytest.importorskip("transformers.pytorch_utils")
    turned = layer_pairs(transformers.Conv1D(4, 2), transformers.Conv1D(4, 3), {"weight": {0: (1, 2)}})[0]
    assert torch.equal(turned.goal(torch.tensor([[5.0, 6.0, 7.0]])), torch.tensor([[6.0, 7.0]]))


def test_other_networks_and_plans_are_refused(teacher, images, pruned):
    kept = pruned.report.plan.kept
    batch = (images, torch.zeros(24, dtype=torch.int64))
    with pytest.raises(
        ValueError, match=r"body has \d+ inputs, the teacher's 16, and kept names none: give kept="
    ):
        Distillation(teacher, hidden=1.0)(pruned.model.train(), batch)
    with pytest.raises(ValueError, match=r"kept names 2, up to number 1: give kept=plan\.kept"):
        layer_pairs(pruned.model, teacher, {**kept, "body.weight": {1: (0, 1)}})
    with pytest.raises(
        ValueError, match=r"the teacher's 11, and kept names 11, up to number 1[45]: give kept="
    ):
        layer_pairs(pruned.model, copy.deepcopy(pruned.model), kept)
    with pytest.raises(TypeError, match=r"kept is a FilterPlan: pass plan\.kept"):
        Distillation(teacher, hidden=1.0, kept=pruned.report.plan)
    with pytest.raises(ValueError, match="the teacher has no layer 0: take the network as it was"):
        layer_pairs(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 3), {})
    with pytest.raises(ValueError, match="hidden=-1: must be 0 or more"):
        Distillation(teacher, hidden=-1)
    with pytest.raises(
        ValueError, match=r"no layer receives what a layer of the teacher receives.*torch\.compile"
    ):
        hint_distance(layer_pairs(pruned.model, teacher, kept), {}, {})
    assert apply_plan(teacher, pruned.report.plan).body.in_channels == pruned.model.body.in_channels
