"""Learning from a teacher: the loss by hand, its limits, and that it helps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bisparse.train.distillation import Distillation
from bisparse.train.objective import CrossEntropy


def _net(seed: int, width: int = 16, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, classes))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(32, 8, generator=generator), torch.randint(0, 3, (32,), generator=generator)


def test_the_loss_by_hand(batch):
    model, teacher = _net(0), _net(1).eval()
    outcome = Distillation(teacher, weight=0.7, temperature=2.0)(model, batch)
    z, t = model(batch[0]).double(), teacher(batch[0]).double()
    q = (t / 2).softmax(1)
    divergence = (q * (q.log() - (z / 2).log_softmax(1))).sum(1).mean()
    expected = 0.3 * F.cross_entropy(z, batch[1]) + 0.7 * 4.0 * divergence
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (int(outcome.hits), int(outcome.count)) == (int((z.argmax(1) == batch[1]).sum()), 32)


@pytest.mark.parametrize("objective", [CrossEntropy(), Distillation(_net(1).eval())])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(32), r"targets are float32 \(32,\): cross-entropy needs class numbers of int64"),
        (torch.zeros(32, 3, dtype=torch.int64), r"targets \(32, 3\) for 32 predictions of 3 classes"),
        (torch.zeros(31, dtype=torch.int64), r"targets \(31,\) for 32 predictions of 3 classes"),
    ],
)
def test_targets_that_are_no_class_numbers_are_named(objective, targets, message):
    with pytest.raises(ValueError, match=message):
        objective(_net(0), (torch.randn(32, 8), targets))


def test_without_weight_it_is_the_cross_entropy_and_so_it_is_in_evaluation(batch):
    model, teacher = _net(0), _net(1).eval()
    plain = CrossEntropy()(model, batch).loss
    assert torch.allclose(Distillation(teacher, weight=0.0)(model, batch).loss, plain)
    assert torch.equal(Distillation(teacher)(model.eval(), batch).loss, CrossEntropy()(model, batch).loss)


def test_a_copy_of_the_teacher_has_nothing_to_learn_from_it(batch):
    teacher = _net(1).eval()
    model = copy.deepcopy(teacher).train()
    Distillation(teacher, weight=1.0)(model, batch).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() < 1e-6 for p in model.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_comes_to_predict_what_its_teacher_predicts(batch):
    teacher, model = _net(1).eval(), _net(0, width=12)
    inputs, targets = batch
    objective = Distillation(teacher, weight=1.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    before = (model(inputs).argmax(1) == teacher(inputs).argmax(1)).float().mean()
    for _ in range(200):
        optimizer.zero_grad()
        objective(model, (inputs, targets)).loss.backward()
        optimizer.step()
    after = (model(inputs).argmax(1) == teacher(inputs).argmax(1)).float().mean()
    assert before < 0.8
    assert after > 0.95


def test_mixed_pairs_by_hand(batch):
    model, teacher = _net(0), _net(1).eval()
    torch.manual_seed(3)
    share, other = 0.6 * torch.rand(32, 1), torch.randperm(32)
    inputs, labels = batch
    mixed = (1 - share) * inputs + share * inputs[other]
    z, t = model(mixed), teacher(mixed)
    own = [F.cross_entropy(z, y, reduction="none") for y in (labels, labels[other])]
    divergence = (t.softmax(1) * (t.log_softmax(1) - z.log_softmax(1))).sum(1).mean()
    expected = 0.5 * ((1 - share[:, 0]) * own[0] + share[:, 0] * own[1]).mean() + 0.5 * divergence
    torch.manual_seed(3)
    outcome = Distillation(teacher, weight=0.5, temperature=1.0, mixup=0.6)(model, batch)
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert int(outcome.hits) == int((z.argmax(1) == labels).sum())


def test_nothing_is_mixed_in_evaluation(batch):
    teacher, model = _net(1).eval(), _net(0).eval()
    assert torch.equal(Distillation(teacher, mixup=0.5)(model, batch).loss, CrossEntropy()(model, batch).loss)


def test_what_makes_no_sense_is_refused(batch):
    teacher = _net(1).eval()
    with pytest.raises(ValueError, match=r"weight=1\.5: a share"):
        Distillation(teacher, weight=1.5)
    with pytest.raises(ValueError, match="temperature=0: must be above 0"):
        Distillation(teacher, temperature=0)
    with pytest.raises(ValueError, match="temperature=inf: must be above 0, and finite"):
        Distillation(teacher, temperature=float("inf"))
    with pytest.raises(ValueError, match=r"training mode: call teacher\.eval"):
        Distillation(_net(1))
    with pytest.raises(ValueError, match=r"\(32, 3\), the teacher's \(32, 5\)"):
        Distillation(_net(1, classes=5).eval())(_net(0), batch)
    with pytest.raises(TypeError, match="keyword arguments"):
        Distillation(teacher)(_net(0), {"x": batch[0]})
    with pytest.raises(ValueError, match=r"mixup=-0\.5: a share"):
        Distillation(teacher, mixup=-0.5)
    with pytest.raises(ValueError, match=r"int64: use mixup=0"):
        Distillation(nn.Embedding(9, 3).eval(), mixup=0.5)(nn.Embedding(9, 3), (batch[1], batch[1]))
    sequences = (batch[0].view(4, 8, 8), batch[1].view(4, 8))
    with pytest.raises(ValueError, match="4 inputs with 32 targets cannot be mixed"):
        Distillation(teacher, mixup=0.5)(_net(0), sequences)
