from __future__ import annotations

import pytest
import torch

from bisparse.zoo import Split, accuracy, digits, fit, mlp


def test_digits_are_divided_without_loss_and_repeatably() -> None:
    data, again, other = digits(seed=3), digits(seed=3), digits(seed=4)
    assert len(data.train_labels) + len(data.test_labels) == 1797
    assert data.train_inputs.shape[1:] == (64,)
    assert len(data.test_labels) == 449
    assert data.classes == 10
    assert data.train_inputs.abs().max() <= 0.5
    assert torch.equal(data.train_inputs, again.train_inputs)
    assert not torch.equal(data.train_labels, other.train_labels)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1e-9])
def test_digits_refuses_an_empty_part(share: float) -> None:
    with pytest.raises(ValueError, match="test_share"):
        digits(test_share=share)


def test_split_refuses_labels_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="test_inputs: 3 examples"):
        Split(torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(3, 4), torch.zeros(2).long())


def test_mlp_has_the_asked_layers_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    model = mlp((6, 5, 4, 3), seed=7)
    assert torch.equal(torch.rand(1), expected)
    assert [tuple(p.shape) for p in model.parameters() if p.ndim == 2] == [(5, 6), (4, 5), (3, 4)]
    assert model(torch.zeros(2, 6)).shape == (2, 3)
    assert torch.equal(model[0].weight, mlp((6, 5, 4, 3), seed=7)[0].weight)


@pytest.mark.parametrize("widths", [(), (4,), (4, 0, 3)])
def test_mlp_refuses_impossible_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="widths"):
        mlp(widths)


def test_training_learns_the_digits_and_repeats_bit_for_bit() -> None:
    data = digits()
    models = [mlp((64, 32, 10), seed=1) for _ in range(2)]
    before = accuracy(models[0], data.test_inputs, data.test_labels)
    losses = [fit(model, data, epochs=5, learning_rate=3e-3, seed=2) for model in models]
    assert losses[0] == losses[1]
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    assert before < 0.3
    assert accuracy(models[0], data.test_inputs, data.test_labels) > 0.85


def test_after_step_holds_masked_weights_at_zero() -> None:
    data = digits()
    model = mlp((64, 16, 10))
    mask = torch.rand(16, 64, generator=torch.Generator().manual_seed(0)) < 0.5

    def apply_mask() -> None:
        model[0].weight.data.mul_(mask)

    fit(model, data, epochs=1, after_step=apply_mask)
    assert not model[0].weight[~mask].any()
    assert model[0].weight[mask].abs().min() > 0


def test_accuracy_counts_hits_and_restores_the_mode() -> None:
    model = mlp((2, 2))
    model[0].weight.data = torch.eye(2)
    model[0].bias.data.zero_()
    inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [2.0, 3.0]])
    assert accuracy(model, inputs, torch.tensor([0, 1, 1, 1]), batch=3) == 0.75
    assert model.training
    with pytest.raises(ValueError, match="no examples"):
        accuracy(model, inputs[:0], torch.zeros(0).long())
