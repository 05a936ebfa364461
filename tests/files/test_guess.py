"""What tensors are taken for: by name, shape, bias and config; and what nobody can tell."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bisparse.files.guess import guess_all
from bisparse.weights import Layout

Shapes = Mapping[str, tuple[int, ...]]


def _guess(shapes: Shapes, name: str, config: Mapping[str, object] | None = None, dtype: str = "F32"):
    return guess_all(shapes, dict.fromkeys(shapes, dtype), config or {})[name]


@pytest.mark.parametrize(
    ("name", "shape", "layout"),
    [
        ("layers.0.mlp.up_proj.weight", (64, 32), Layout()),
        ("0.weight", (64, 32), Layout()),
        ("attn.in_proj_weight", (96, 32), Layout("linear", 3)),
        ("rnn.weight_ih_l0", (96, 32), Layout()),
        ("conv.weight", (8, 4, 3, 3), Layout("conv")),
        ("conv.weight", (8, 4, 3, 3, 3), Layout("conv")),
        ("encoder.conv1.weight", (8, 4, 3), Layout("conv")),
    ],
)
def test_plain_weights(name: str, shape: tuple[int, ...], layout: Layout) -> None:
    guess = _guess({name: shape}, name)
    assert guess.layout == layout
    assert not guess.undecided


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("norm.weight", (64,)),
        ("scale", ()),
        ("pos_embed", (1, 197, 64)),
        ("cls_token", (1, 1, 64)),
        ("attn.bias", (1, 1, 64, 64)),
        ("attn.relative_position_bias_table", (169, 4)),
        ("rotary.cos_cached", (128, 64)),
        ("fc.weight_scale", (64, 1)),
        ("fc.lora_A.weight", (8, 64)),
        ("mixer.conv1d.weight", (64, 1, 4)),
        ("empty.weight", (0, 4)),
    ],
)
def test_no_weights(name: str, shape: tuple[int, ...]) -> None:
    guess = _guess({name: shape}, name)
    assert guess.layout is None
    assert not guess.undecided
    assert guess.why


@pytest.mark.parametrize(("dtype", "kind"), [("I8", "not floating point"), ("F8_E4M3", "quantised")])
def test_other_types_are_left(dtype: str, kind: str) -> None:
    assert _guess({"fc.weight": (8, 8)}, "fc.weight", dtype=dtype).taken_for == kind


GPT2 = {
    "h.0.attn.c_attn.weight": (32, 96),
    "h.0.attn.c_proj.weight": (32, 32),
    "h.0.mlp.c_fc.weight": (32, 128),
}


def test_gpt2_by_its_config() -> None:
    guess = _guess(GPT2, "h.0.attn.c_proj.weight", {"model_type": "gpt2"})
    assert guess.layout == Layout("transposed")
    assert guess.why == "config: model_type gpt2"
    other = _guess(GPT2, "h.0.attn.c_proj.weight", {"model_type": "gpt_bigcode"})
    assert other.layout == Layout()


def test_gpt2_by_the_length_of_a_bias() -> None:
    shapes = GPT2 | {"h.0.attn.c_attn.bias": (96,)}
    guess = _guess(shapes, "h.0.attn.c_proj.weight")
    assert guess.layout == Layout("transposed")
    assert guess.why == "as h.0.attn.c_attn, whose bias has 96 outputs"
    assert _guess(shapes, "h.0.attn.c_attn.weight").why == "its bias has 96 outputs"
    # The same names in a model that uses nn.Linear: its bias says so.
    linear = {
        "h.0.attn.c_attn.weight": (96, 32),
        "h.0.attn.c_attn.bias": (96,),
        "h.0.x.c_proj.weight": (32, 32),
    }
    assert _guess(linear, "h.0.x.c_proj.weight").layout == Layout()


def test_gpt2_names_without_evidence_stay_open() -> None:
    guess = _guess(GPT2, "h.0.attn.c_attn.weight")
    assert guess.undecided == "transposed"
    assert guess.layout is not None
    assert not guess.layout.oriented


def test_the_bias_turns_a_matrix_and_a_convolution() -> None:
    assert _guess({"a.weight": (4, 8), "a.bias": (8,)}, "a.weight").layout == Layout("transposed")
    shapes = {"up.weight": (4, 8, 2, 2), "up.bias": (8,)}
    assert _guess(shapes, "up.weight").layout == Layout("conv_transpose")
    assert _guess({"c.weight": (8, 4, 3), "c.bias": (8,)}, "c.weight").layout == Layout("conv")


def test_depthwise_needs_a_layer_before_it() -> None:
    mobile = {"stem.weight": (32, 3, 3, 3), "dw.weight": (32, 1, 3, 3)}
    assert _guess(mobile, "dw.weight").taken_for == "depthwise conv"
    lenet = {"conv1.weight": (6, 1, 5, 5), "conv2.weight": (16, 6, 5, 5)}
    assert _guess(lenet, "conv1.weight").layout == Layout("conv")


def test_three_dimensions_stay_open_without_evidence() -> None:
    guess = _guess({"mix.weight": (8, 16, 32)}, "mix.weight")
    assert guess.layout is None
    assert "experts" in guess.undecided


def test_experts() -> None:
    shapes = {"mlp.experts.gate_up_proj": (4, 32, 96), "mlp.experts.down_proj": (4, 48, 32)}
    config = {"model_type": "new", "hidden_size": 32}
    # x @ W: the input of gate_up and the output of down have the hidden size.
    assert _guess(shapes, "mlp.experts.gate_up_proj", config).layout == Layout("experts_transposed")
    assert _guess(shapes, "mlp.experts.down_proj", config).layout == Layout("experts_transposed")
    turned = {"mlp.experts.gate_up_proj": (4, 96, 32), "mlp.experts.down_proj": (4, 32, 48)}
    nested = {"text_config": config}
    assert _guess(turned, "mlp.experts.gate_up_proj", nested).layout == Layout("experts")
    assert _guess(turned, "mlp.experts.down_proj", nested).layout == Layout("experts")
    square = {"mlp.experts.down_proj": (4, 32, 32)}
    assert _guess(square, "mlp.experts.down_proj", {"model_type": "gpt_oss"}).layout == Layout(
        "experts_transposed"
    )
    open_one = _guess(square, "mlp.experts.down_proj")
    assert open_one.undecided == "experts_transposed"
    assert _guess({"m.weight": (4, 8, 8)}, "m.weight", {"num_experts": 4}).taken_for == "experts"
