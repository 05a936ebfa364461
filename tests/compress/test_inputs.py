"""Inputs times weight must give the module's own output, for every kind of module."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bisparse.compress.inputs import flat_samples, stages, visited_module
from bisparse.weights import Weight, as_rows, find_weights


class Conv1D(nn.Module):
    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class LoopExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 6, 4))

    def forward(self, x: Tensor) -> Tensor:
        route = torch.arange(len(x)) % 3
        out = x.new_zeros(len(x), 6)
        for expert in range(3):
            out[route == expert] = nn.functional.linear(x[route == expert], self.up[expert])
        return out


class BatchedExperts(LoopExperts):
    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x.expand(3, -1, -1), self.up.transpose(1, 2))


def features(
    module: nn.Module, *args: Tensor, model: nn.Module | None = None
) -> dict[str, tuple[Weight, list[Tensor]]]:
    model = model or nn.Sequential(module)
    found: dict[str, tuple[Weight, list[Tensor]]] = {}
    weights = list(find_weights(model, ignore=[]))
    visits: dict[nn.Module, list[Weight]] = {}
    for weight in weights:
        visits.setdefault(visited_module(weight, model), []).append(weight)
    with torch.no_grad():
        for visited, own in visits.items():
            for stage in stages(visited, own):
                for name, value in stage.features(args, {}, None).items():
                    found[name] = (next(w for w in own if w.name == name), value)
    return found


def products(weight: Weight, inputs: list[Tensor]) -> list[Tensor]:
    rows = as_rows(weight.parameter.detach(), weight.layout)
    return [x @ w.T for x, w in zip(inputs, rows, strict=True)]


LINEAR_LIKE = [
    (nn.Linear(4, 6), torch.randn(5, 4)),
    (nn.Linear(4, 6), torch.randn(2, 3, 4)),
    (Conv1D(6, 4), torch.randn(2, 3, 4)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), torch.randn(2, 4, 9)),
    (nn.Conv1d(4, 6, 4, padding="same"), torch.randn(2, 4, 9)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), torch.randn(2, 4, 7, 6)),
    (nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"), torch.randn(2, 4, 7, 6)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), torch.randn(2, 4, 5, 6)),
    (nn.Conv2d(4, 6, 1), torch.randn(4, 5, 6)),
    (nn.Conv3d(4, 6, 2, dilation=2, padding=1), torch.randn(2, 4, 5, 4, 6)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), torch.randn(2, 4, 5)),
    (nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), dilation=(2, 1)), torch.randn(2, 4, 5, 3)),
    (nn.ConvTranspose3d(4, 6, 2, stride=2), torch.randn(2, 4, 3, 2, 3)),
]


@pytest.mark.parametrize(("module", "inputs"), LINEAR_LIKE, ids=lambda value: type(value).__name__)
def test_products_equal_the_modules_output(module, inputs):
    weight, found = features(module, inputs)["0.weight"]
    outputs = torch.cat(products(weight, found), 1)  # (n, channels)
    with torch.no_grad():
        expected = module(inputs)
    if "Conv" in type(module).__name__ and not isinstance(module, Conv1D):
        channel = 0 if inputs.dim() == len(module.kernel_size) + 1 else 1
        expected = expected.movedim(channel, -1)
    expected = expected.reshape(-1, expected.shape[-1]) - module.bias.detach()
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-4)


def test_output_size_of_a_transposed_convolution_is_respected():
    module = nn.ConvTranspose1d(2, 3, 3, stride=2)
    _, found = features(module, torch.randn(1, 2, 4), [10])["0.weight"]
    assert found[0].shape[0] == 10


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_projections(batch_first):
    module = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    query, key = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    found = features(module, query, key, key)
    weight, inputs = found["0.in_proj_weight"]
    assert [
        torch.equal(part, x.reshape(-1, 8)) for part, x in zip(inputs, (query, key, key), strict=True)
    ] == [True] * 3
    weight, inputs = found["0.out_proj.weight"]
    with torch.no_grad():
        expected = module(query, key, key)[0].reshape(-1, 8) - module.out_proj.bias
    torch.testing.assert_close(products(weight, inputs)[0], expected)
    assert not torch.equal(module.out_proj.weight.detach(), torch.eye(8))


def test_attention_with_separate_weights():
    module = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    found = features(module, torch.randn(5, 3, 8), torch.randn(7, 3, 4), torch.randn(7, 3, 6))
    assert {name: len(value[1][0]) for name, value in found.items()} == {
        "0.q_proj_weight": 15,
        "0.k_proj_weight": 21,
        "0.v_proj_weight": 21,
        "0.out_proj.weight": 15,
    }


@pytest.mark.parametrize(
    "module",
    [
        nn.RNN(4, 6, 2, bidirectional=True),
        nn.RNN(4, 6, nonlinearity="relu", bias=False),
        nn.GRU(4, 6, 2, batch_first=True, bidirectional=True),
        nn.LSTM(4, 6, 2, proj_size=3, bidirectional=True),
    ],
    ids=lambda module: repr(module)[:3],
)
def test_recurrent_layers_follow_torch(module):
    """Hidden states are right exactly when every layer's output, rebuilt from the features, is torch's."""
    inputs = torch.randn(3, 5, 4)
    found = features(module, inputs)
    with torch.no_grad():
        outputs = module(inputs)[0]
    outputs = outputs.transpose(0, 1) if module.batch_first else outputs  # (T, B, directions * H)
    width = module.proj_size or module.hidden_size
    previous = found[f"0.weight_hh_l{module.num_layers - 1}"][1][0].reshape(*outputs.shape[:2], width)
    torch.testing.assert_close(previous[1:], outputs[:-1, :, :width])
    if module.bidirectional:
        back = found[f"0.weight_hh_l{module.num_layers - 1}_reverse"][1][0].reshape(*outputs.shape[:2], width)
        torch.testing.assert_close(back[:-1], outputs[1:, :, width:])
    if module.proj_size:
        weight, raw = found[f"0.weight_hr_l{module.num_layers - 1}"]
        torch.testing.assert_close(products(weight, raw)[0].reshape_as(previous), outputs[..., :width])


def test_recurrent_state_is_respected_and_packed_sequences_are_refused():
    module = nn.GRU(4, 6)
    hidden = torch.randn(1, 5, 6)
    first = features(module, torch.randn(3, 5, 4), hidden)["0.weight_hh_l0"][1][0][:5]
    assert torch.equal(first, hidden[0])
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(3, 2, 4), [3, 2])
    with pytest.raises(ValueError, match="packed"):
        features(module, packed)


def test_cells():
    found = features(nn.LSTMCell(4, 6), torch.randn(5, 4))
    assert torch.equal(found["0.weight_hh"][1][0], torch.zeros(5, 6))
    found = features(nn.GRUCell(4, 6), torch.randn(5, 4), torch.ones(5, 6))
    assert torch.equal(found["0.weight_hh"][1][0], torch.ones(5, 6))


def test_experts_used_one_by_one_and_in_a_batch():
    inputs = torch.randn(7, 4)
    looped = features(LoopExperts(), inputs)["0.up"][1]
    assert [torch.equal(part, inputs[e::3]) for e, part in enumerate(looped)] == [True] * 3
    whole = features(BatchedExperts(), inputs)["0.up"][1]
    assert all(torch.equal(part, inputs) for part in whole)


def test_padding_tokens_are_left_out():
    valid = torch.tensor([[True, True, False], [True, False, False]])
    inputs = torch.arange(12.0).reshape(2, 3, 2)
    assert flat_samples(inputs, valid).tolist() == [[0, 1], [2, 3], [6, 7]]
    assert flat_samples(inputs.transpose(0, 1), valid).tolist() == [[0, 1], [6, 7], [2, 3]]
    assert flat_samples(inputs.reshape(6, 2), valid).tolist() == [[0, 1], [2, 3], [6, 7]]
    assert len(flat_samples(inputs[:, 0], valid)) == 2
