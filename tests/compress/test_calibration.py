from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.compress.calibration import Call, calibration_calls, evaluation_state


class Tokens(nn.Module):
    """Takes what a language model takes."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.config = type("Config", (), {"use_cache": True})()

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        return self.embed(input_ids)


def test_every_form_of_batch():
    model = nn.Linear(4, 2)
    x = torch.randn(3, 4)
    labels = torch.zeros(3)
    for batch in (x, (x,), (x, labels), [x, labels], {"input": x, "labels": labels}, Call((x,))):
        (call,) = calibration_calls([batch], model)
        assert torch.equal(call.run(model), model(x))


def test_iterables_and_callables():
    model = nn.Linear(4, 2)
    data = [torch.randn(3, 4) for _ in range(2)]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.cat(data), torch.zeros(6)), 3)
    for calibration in (
        data,
        iter(data),
        lambda: iter(data),
        loader,
        lambda network: [network(x) for x in data],
    ):
        calls = calibration_calls(calibration, model)
        assert [torch.equal(call.args[0], x) for call, x in zip(calls, data, strict=True)] == [True, True]


def test_attention_masks_mark_padding():
    batch = {
        "input_ids": torch.ones(1, 3, dtype=torch.long),
        "attention_mask": torch.tensor([[1, 1, 0]]),
        "labels": 0,
    }
    (call,) = calibration_calls([batch], Tokens())
    assert call.valid is not None
    assert call.valid.tolist() == [[True, True, False]]
    assert set(call.kwargs) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("empty", [[], iter([]), list])
def test_no_batch_is_an_error(empty):
    with pytest.raises(ValueError, match="no batch"):
        calibration_calls(empty, nn.Linear(2, 2))


def test_batches_without_a_sample_are_an_error():
    with pytest.raises(ValueError, match="empty"):
        calibration_calls([torch.zeros(0, 2)], nn.Linear(2, 2))
    assert len(calibration_calls([torch.zeros(0, 2), torch.zeros(1, 2)], nn.Linear(2, 2))) == 2


def test_a_bare_tensor_or_mapping_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match="split"):
        calibration_calls(torch.zeros(3, 2), nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"\[batch\]"):
        calibration_calls({"input": torch.zeros(3, 2)}, nn.Linear(2, 2))
    with pytest.raises(TypeError, match="got one NoneType"):
        calibration_calls(None, nn.Linear(2, 2))
    with pytest.raises(ValueError, match="returned one Tensor: return an iterable of batches"):
        calibration_calls(lambda: torch.zeros(3, 2), nn.Linear(2, 2))


def test_a_batch_without_usable_keys_is_refused():
    with pytest.raises(ValueError, match="pixels"):
        calibration_calls([{"pixels": torch.zeros(2, 4)}], nn.Linear(4, 2))


def test_modes_flags_and_caches_are_restored_even_after_an_error():
    model = nn.Sequential(nn.Dropout(), Tokens())
    inner = model[1]
    inner.eval()
    model.config = inner.config
    inside = []

    def work():
        inside.extend([model.training, torch.is_grad_enabled(), inner.config.use_cache])
        raise KeyError

    with pytest.raises(KeyError), evaluation_state(model):
        work()
    assert inside == [False, False, False]
    assert model.training
    assert model[0].training
    assert not inner.training
    assert torch.is_grad_enabled()
    assert inner.config.use_cache is True
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (nn.Linear(2, 2), torch.zeros(5, 3), r"batch \(float32 \(5, 3\)\).*shapes"),
        (nn.Linear(2, 2), torch.zeros(5, 2, dtype=torch.long), r"int64 \(5, 2\)"),
        (nn.Linear(2, 2), "text", "str"),
        (Tokens(), torch.full((1, 2), 99), r"int64 \(1, 2\).*out of range"),
    ],
    ids=["shape", "dtype", "type", "token"],
)
def test_batches_that_the_model_cannot_run_on_are_described(model, batch, message):
    (call,) = calibration_calls([batch], model)
    with pytest.raises(ValueError, match=message):
        call.run(model)
