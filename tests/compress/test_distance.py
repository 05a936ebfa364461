from __future__ import annotations

import pytest
import torch

from bisparse.compress.distance import relative_distance


def tensors(form):
    torch.manual_seed(0)
    a, b = torch.randn(4, 3, 5, 6, dtype=torch.float64), torch.randn(4, 3, 5, 6, dtype=torch.float64)
    if form == "channels_last":
        return a.to(memory_format=torch.channels_last), b.to(memory_format=torch.channels_last)
    if form == "mixed":
        return a, b.to(memory_format=torch.channels_last)
    if form == "views":
        return a[:, :, ::2].transpose(1, 3), b[:, :, ::2].transpose(1, 3)
    if form == "expanded":
        return a, b[:1].expand(4, -1, -1, -1)
    return a, b


@pytest.mark.parametrize("form", ["contiguous", "channels_last", "mixed", "views", "expanded"])
def test_value_and_gradient_are_those_of_the_formula(form):
    found, goal = tensors(form)
    one, other = found.clone().requires_grad_(), found.clone().requires_grad_()
    value = relative_distance(one, goal)
    formula = (other - goal).square().sum() / goal.square().sum()
    torch.testing.assert_close(value, formula)
    (3.0 * value).backward()
    (3.0 * formula).backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_gradients_keep_the_memory_format():
    found, goal = tensors("channels_last")
    found = found.requires_grad_()
    (grad,) = torch.autograd.grad(relative_distance(found, goal), found)
    assert grad.is_contiguous(memory_format=torch.channels_last)


def test_a_goal_of_zeros_is_no_division_by_zero():
    assert float(relative_distance(torch.zeros(3), torch.zeros(3))) == 0.0


def test_a_silent_goal_counts_nothing():
    found = torch.ones(3, requires_grad=True)
    distance = relative_distance(found, torch.zeros(3))
    distance.backward()
    assert float(distance.detach()) == 0.0
    assert torch.equal(found.grad, torch.zeros(3))
