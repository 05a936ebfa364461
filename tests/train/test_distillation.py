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


def test_what_makes_no_sense_is_refused(batch):
    teacher = _net(1).eval()
    with pytest.raises(ValueError, match=r"weight=1\.5: a share"):
        Distillation(teacher, weight=1.5)
    with pytest.raises(ValueError, match="temperature=0: must be above 0"):
        Distillation(teacher, temperature=0)
    with pytest.raises(ValueError, match=r"training mode: call teacher\.eval"):
        Distillation(_net(1))
    with pytest.raises(ValueError, match=r"\(32, 3\), the teacher's \(32, 5\)"):
        Distillation(_net(1, classes=5).eval())(_net(0), batch)
    with pytest.raises(TypeError, match="keyword arguments"):
        Distillation(teacher)(_net(0), {"x": batch[0]})
