"""Inputs of the weights of recurrent layers: layer inputs, previous hidden states, states before a
projection.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bisparse.compress.inputs.stage import Features, flat_samples

__all__ = ["cell_features", "recurrent_features"]


def _parameter(module: nn.Module, name: str) -> Tensor | None:
    return getattr(module, name, None)


def _affine(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(inputs, weight, bias)


def _step(mode: str, gates_x: Tensor, gates_h: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One time step from the two halves of the gate pre-activations: (unprojected hidden state, cell
    state).
    """
    if mode == "LSTM":
        i, f, g, o = (gates_x + gates_h).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell
    if mode == "GRU":
        (rx, zx, nx), (rh, zh, nh) = gates_x.chunk(3, -1), gates_h.chunk(3, -1)
        update = (zx + zh).sigmoid()
        return (1 - update) * (nx + (rx + rh).sigmoid() * nh).tanh() + update * hidden, cell
    return (gates_x + gates_h).relu() if mode == "RNN_RELU" else (gates_x + gates_h).tanh(), cell


def _direction(
    module: nn.RNNBase, suffix: str, inputs: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one direction of one layer: (outputs, previous hidden states, unprojected states), each (T, B,
    .).
    """
    hh, bias_hh = getattr(module, f"weight_hh_l{suffix}"), _parameter(module, f"bias_hh_l{suffix}")
    projection = _parameter(module, f"weight_hr_l{suffix}")
    gates_x = _affine(
        inputs, getattr(module, f"weight_ih_l{suffix}"), _parameter(module, f"bias_ih_l{suffix}")
    )
    steps = range(inputs.shape[0])
    outputs, previous, raw = [], [], []
    for t in reversed(steps) if suffix.endswith("_reverse") else steps:
        previous.append(hidden)
        state, cell = _step(module.mode, gates_x[t], _affine(hidden, hh, bias_hh), hidden, cell)
        raw.append(state)
        hidden = state if projection is None else state @ projection.t()
        outputs.append(hidden)
    stacked = [
        torch.stack(part[::-1] if suffix.endswith("_reverse") else part) for part in (outputs, previous, raw)
    ]
    return stacked[0], stacked[1], stacked[2]


def _states(module: nn.RNNBase, inputs: Tensor, given: Any) -> tuple[Tensor, Tensor]:
    """Initial hidden and cell states, (layers * directions, B, .)."""
    count = module.num_layers * (2 if module.bidirectional else 1)
    hidden, cell = given if isinstance(given, tuple) else (given, None)
    if hidden is None:
        hidden = inputs.new_zeros(count, inputs.shape[1], module.proj_size or module.hidden_size)
    if cell is None:
        cell = inputs.new_zeros(count, inputs.shape[1], module.hidden_size)
    shape = (count, inputs.shape[1], -1)
    return hidden.reshape(shape), cell.reshape(shape)


def recurrent_features(
    module: nn.RNNBase, args: tuple[Any, ...], valid: Tensor | None
) -> dict[str, Features]:
    """Inputs of every weight of an RNN, LSTM or GRU (layers, directions, projections), with the present
    weights.

    Raises:
        ValueError: packed sequences, whose padding cannot be told from data here.
    """
    if not isinstance(args[0], Tensor):
        raise ValueError(
            "packed sequences cannot be calibrated on: pass padded batches to the recurrent layer"
        )
    inputs = args[0].unsqueeze(0 if module.batch_first else 1) if args[0].dim() == 2 else args[0]
    layer = inputs.transpose(0, 1) if module.batch_first else inputs  # (T, B, C)
    hidden, cell = _states(module, layer, args[1] if len(args) > 1 else None)
    features: dict[str, Features] = {}
    for number in range(module.num_layers):
        outputs = []
        for way in range(2 if module.bidirectional else 1):
            suffix = f"{number}{'_reverse' if way else ''}"
            index = number * (2 if module.bidirectional else 1) + way
            out, previous, raw = _direction(module, suffix, layer, hidden[index], cell[index])
            features[f"weight_ih_l{suffix}"] = [flat_samples(layer, valid)]
            features[f"weight_hh_l{suffix}"] = [flat_samples(previous, valid)]
            if module.proj_size:
                features[f"weight_hr_l{suffix}"] = [flat_samples(raw, valid)]
            outputs.append(out)
        layer = torch.cat(outputs, -1)
    return features


def cell_features(module: nn.RNNCellBase, args: tuple[Any, ...]) -> dict[str, Features]:
    """Inputs of the two weights of an RNNCell, LSTMCell or GRUCell."""
    inputs = args[0]
    state = args[1] if len(args) > 1 else None
    hidden = state[0] if isinstance(state, tuple) else state
    if hidden is None:
        hidden = inputs.new_zeros(*inputs.shape[:-1], module.hidden_size)
    return {"weight_ih": [flat_samples(inputs, None)], "weight_hh": [flat_samples(hidden, None)]}
