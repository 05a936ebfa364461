from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.compress import Distill, LeastSquares, prune
from bisparse.compress.calibration import Call
from bisparse.compress.outputs import output_tensor, split_call, valid_outputs


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    )


def data(seed=5):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(600, 16, generator=generator).split(200))


def test_it_lowers_the_output_error_on_new_data_and_keeps_the_masks():
    model, fresh = mlp(), torch.cat(data(6))
    error = {}
    for epochs in (0, 10):
        recipe = (LeastSquares(), Distill(hidden=0.0, epochs=epochs, min_steps=0, rate=3e-3))
        pruned = prune(model, "1:4", calibration=data(), reconstruct=recipe)
        error[epochs] = float((pruned.model(fresh) - model(fresh)).detach().norm())
        zeros = pruned.model[3].weight == 0
        assert int(zeros.sum()) == 768
    assert error[10] < 0.9 * error[0]
    notes = pruned.report.notes
    assert notes["distill_kept"]
    assert notes["distill_loss_after"] < notes["distill_loss_before"]


def test_a_result_that_does_not_help_on_held_out_data_is_dropped():
    model = mlp()
    plain = prune(model, "2:4", calibration=data(), reconstruct="least_squares", scores="obs")
    wild = prune(
        model,
        "2:4",
        calibration=data(),
        reconstruct=(LeastSquares(), Distill(epochs=2, min_steps=0, rate=1e3)),
        scores="obs",
    )
    assert not wild.report.notes["distill_kept"]
    assert torch.equal(wild.model[3].weight, plain.model[3].weight)


def test_half_precision_weights_are_fitted_in_single_precision():
    model = mlp().half()
    calibration = [x.half() for x in data()]
    pruned = prune(
        model,
        "2:4",
        calibration=calibration,
        reconstruct=(LeastSquares(), Distill(epochs=3, min_steps=0, rate=1e-3)),
    )
    assert pruned.model[3].weight.dtype == torch.float16
    assert pruned.report.notes["distill_kept"]


def test_tied_and_shared_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body, self.head = (
                nn.Embedding(20, 8),
                nn.Linear(8, 8),
                nn.Linear(8, 20, bias=False),
            )
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.body(self.embed(ids)))

    torch.manual_seed(0)
    model = Tied()
    ids = torch.randint(20, (64, 5))
    pruned = prune(model, "2:4", calibration=[ids], reconstruct="least_squares+distill")
    assert pruned.model.head.weight is pruned.model.embed.weight
    assert torch.equal(pruned.model.head.weight, model.head.weight)


def test_outputs_of_every_form():
    x = torch.randn(2, 3)
    holder = type("Output", (), {"logits": x})()
    for output in (x, (x, None), {"logits": x}, {"other": x}, holder, [[x]]):
        assert output_tensor(output) is x
    with pytest.raises(TypeError, match="str"):
        output_tensor("text")
    assert valid_outputs(
        torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    ).shape == (3, 4)


def test_calls_are_cut_by_samples():
    mask = torch.ones(5, 2, dtype=torch.bool)
    pieces = list(split_call(Call((torch.arange(5),), {"mask": mask, "flag": True}, mask), 2))
    assert [len(piece.args[0]) for piece in pieces] == [2, 2, 1]
    assert [len(piece.valid) for piece in pieces] == [2, 2, 1]
    assert pieces[0].kwargs["flag"] is True
    uneven = Call((torch.zeros(5, 2), torch.zeros(3)))
    assert list(split_call(uneven, 2)) == [uneven]


@pytest.mark.parametrize(
    "option",
    [
        {"loss": "x"},
        {"hidden": -1.0},
        {"epochs": -1},
        {"batch": 0},
        {"rate": 0.0},
        {"mixup": 1.5},
        {"held_out": 1.0},
        {"rate": float("nan")},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        Distill(**option)


def test_it_works_on_compiled_models_and_without_gradients_but_not_in_inference_mode():
    model = torch.compile(mlp())
    with torch.no_grad():
        report = prune(model, "2:4t", calibration=data(), reconstruct="least_squares+distill").report
    assert [layer.name for layer in report.layers] == ["_orig_mod.0.weight", "_orig_mod.3.weight"]
    assert report.notes["distill_kept"]
    with pytest.raises(ValueError, match="inference_mode"), torch.inference_mode():
        prune(model, "2:4t", calibration=data())
