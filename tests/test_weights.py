from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.weights import (
    Layout,
    as_matrices,
    find_weights,
    from_matrices,
    matches,
    protected_names,
    select_names,
)

CASES = [
    (Layout("linear"), (6, 4), (1, 6, 4)),
    (Layout("linear", 3), (6, 4), (3, 2, 4)),
    (Layout("transposed"), (6, 4), (1, 4, 6)),
    (Layout("conv"), (6, 4, 3), (3, 6, 4)),
    (Layout("conv", 2), (6, 4, 3, 2), (12, 3, 4)),
    (Layout("conv"), (6, 4, 3, 2, 2), (12, 6, 4)),
    (Layout("conv_transpose", 2), (6, 4, 3, 2), (12, 4, 3)),
    (Layout("experts"), (5, 6, 4), (5, 6, 4)),
    (Layout("experts_transposed"), (5, 6, 4), (5, 4, 6)),
]


@pytest.mark.parametrize(("layout", "shape", "expected"), CASES)
def test_views_have_the_documented_shape_and_invert_exactly(layout, shape, expected):
    weight = torch.randn(shape)
    matrices = as_matrices(weight, layout)
    assert tuple(matrices.shape) == expected
    assert torch.equal(from_matrices(matrices, layout, shape), weight)
    mask = as_matrices(weight > 0, layout)
    assert torch.equal(from_matrices(mask, layout, shape), weight > 0)


@pytest.mark.parametrize(("layout", "shape", "expected"), [c for c in CASES if c[0].parts != 2])
def test_ungrouped_views_share_storage(layout, shape, expected):
    weight = torch.zeros(shape)
    as_matrices(weight, layout)[0, 0, 0] = 1.0
    assert weight.sum() == 1.0


def test_conv_slice_is_one_kernel_position():
    weight = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    assert torch.equal(as_matrices(weight, Layout("conv"))[3], weight[:, :, 1, 1])


def test_grouped_conv_matrices_hold_one_group_each():
    weight = torch.arange(4 * 2 * 3).reshape(4, 2, 3)
    matrices = as_matrices(weight, Layout("conv", 2))
    assert torch.equal(matrices[0], weight[:2, :, 0])
    assert torch.equal(matrices[5], weight[2:, :, 2])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        as_matrices(torch.zeros(2, 3, 4), Layout("linear"))
    with pytest.raises(ValueError, match="3 parts"):
        as_matrices(torch.zeros(4, 4), Layout("linear", 3))
    with pytest.raises(ValueError, match="do not fill"):
        from_matrices(torch.zeros(1, 2, 2), Layout("linear"), (3, 2))
    with pytest.raises(ValueError, match="unknown layout"):
        Layout("diagonal")  # type: ignore[arg-type]


class Conv1D(nn.Module):
    """Stands for transformers' class of that name, which is known by name alone."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.zeros(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))


class ToyExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(4, 16, 8))


def test_every_known_kind_is_found_with_its_layout():
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3),
        nn.Conv3d(4, 4, 3, groups=2),
        nn.ConvTranspose2d(4, 4, 2, groups=2),
        Conv1D(8, 4),
        nn.MultiheadAttention(8, 2),
        nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
        nn.GRU(8, 4, bidirectional=True),
        nn.LSTM(8, 4, proj_size=2),
        nn.LSTMCell(4, 4),
        ToyExperts(),
        nn.Linear(8, 2),
    )
    layouts = {weight.name: weight.layout for weight in find_weights(model, ignore=[])}
    assert layouts == {
        "0.weight": Layout("conv"),
        "1.weight": Layout("conv", 2),
        "2.weight": Layout("conv_transpose", 2),
        "3.weight": Layout("transposed"),
        "4.in_proj_weight": Layout("linear", 3),
        "4.out_proj.weight": Layout(),
        "5.q_proj_weight": Layout(),
        "5.k_proj_weight": Layout(),
        "5.v_proj_weight": Layout(),
        "5.out_proj.weight": Layout(),
        **{f"6.weight_{kind}_l0{way}": Layout() for way in ("", "_reverse") for kind in ("ih", "hh")},
        **{f"7.weight_{kind}_l0": Layout() for kind in ("ih", "hh", "hr")},
        **{f"8.weight_{kind}": Layout() for kind in ("ih", "hh")},
        "9.up": Layout("experts", oriented=False),
        "10.weight": Layout(),
    }


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def test_default_protects_first_convolution_and_classifier():
    selection = find_weights(small_net())
    assert [weight.name for weight in selection] == ["1.weight", "3.weight"]
    reasons = {item.name: item.reason for item in selection.left_out}
    assert "first convolution" in reasons["0.weight"]
    assert "classifier" in reasons["5.weight"]


def test_a_list_replaces_the_protection_and_an_empty_one_removes_it():
    assert [w.name for w in find_weights(small_net(), ignore=["3"])] == ["0.weight", "1.weight", "5.weight"]
    assert len(find_weights(small_net(), ignore=[])) == 4


@pytest.mark.parametrize(
    "targets",
    ["1", ["1.weight"], "re:[1]$", nn.Conv2d, "Conv2d", lambda name, module: name.startswith("1."), ["[1]"]],
)
def test_every_form_of_target(targets):
    assert [weight.name for weight in find_weights(small_net(), targets)] == ["1.weight"]


def test_a_container_name_chooses_what_it_contains():
    model = nn.ModuleDict({"body": small_net(), "body2": small_net()})
    names = [weight.module_name for weight in find_weights(model, targets="body", ignore=[])]
    assert names == ["body.0", "body.1", "body.3", "body.5"]


def test_misspelt_names_are_refused_with_the_nearest():
    model = nn.ModuleDict({"encoder": nn.Linear(4, 4), "decoder": nn.Linear(4, 4)})
    with pytest.raises(ValueError, match=r"targets='encodr'.*encoder"):
        find_weights(model, targets="encodr")
    with pytest.raises(ValueError, match="ignore="):
        find_weights(model, ignore=["nothing"])


def test_tied_weights_appear_once_and_stay_protected():
    model = nn.ModuleDict({"embed": nn.Embedding(16, 8), "body": nn.Linear(8, 8), "head": nn.Linear(8, 16)})
    model["head"].weight = model["embed"].weight
    assert [weight.name for weight in find_weights(model)] == ["body.weight"]
    both = find_weights(model, ignore=[])
    assert [weight.name for weight in both] == ["embed.weight", "body.weight"]
    assert both["head"].aliases == ("head.weight",)
    with pytest.raises(KeyError):
        both["missing"]


def test_the_last_layer_of_repeated_blocks_is_no_classifier():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    assert "layers.1.linear2.weight" in [weight.name for weight in find_weights(model)]


def test_weights_that_cannot_be_pruned_are_left_out_with_the_remedy():
    model = nn.ModuleDict(
        {
            "lazy": nn.LazyLinear(4),
            "meta": nn.Linear(4, 4, device="meta"),
            "whole": nn.Linear(4, 4),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
            "bilinear": nn.Bilinear(2, 3, 4),
        }
    )
    model["whole"].weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    selection = find_weights(model, ignore=[])
    reasons = {item.name: item.reason for item in selection.left_out}
    assert len(selection) == 0
    assert "forward pass" in reasons["lazy.weight"]
    assert "meta" in reasons["meta.weight"]
    assert "dequantise" in reasons["whole.weight"]
    assert "parametris" in reasons["normed.parametrizations.weight.original1"]
    assert "layouts=" in reasons["bilinear.weight"]


def test_layouts_can_be_given_for_unknown_classes():
    model = nn.ModuleDict({"custom": nn.Bilinear(2, 3, 4), "last": nn.Linear(2, 2)})
    chosen = find_weights(model, layouts={"custom.weight": Layout("experts")})
    assert chosen["custom"].layout == Layout("experts")


def test_names_without_classes():
    shapes = {
        "model.embed_tokens.weight": (32, 8),
        "model.layers.0.mlp.up_proj.weight": (16, 8),
        "model.layers.0.mlp.down_proj.weight": (8, 16),
        "lm_head.weight": (32, 8),
    }
    chosen = select_names(shapes)
    assert [name for name, reason in chosen.items() if reason is None] == list(shapes)[1:3]
    assert select_names(shapes, ignore=[])["lm_head.weight"] is None
    assert (
        select_names(shapes, targets="*.up_proj")["model.layers.0.mlp.down_proj.weight"] == "not in targets"
    )
    with pytest.raises(ValueError, match="targets='mlp'"):
        select_names(shapes, targets="mlp")


def test_first_convolution_of_a_file_is_the_one_that_reads_the_image():
    shapes = {"blocks.0.weight": (8, 1, 3, 3), "stem.weight": (8, 3, 3, 3), "fc.weight": (10, 8)}
    assert protected_names(shapes) == {
        "stem.weight": "first convolution",
        "fc.weight": "last classifier or output embedding",
    }


def test_models_and_files_protect_the_same_weights():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)
    headed = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 8), nn.Linear(8, 8))
    for model in (encoder, headed):
        shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.dim() > 1}
        found = {item.name for item in find_weights(model).left_out}
        assert set(protected_names(shapes)) == found
    assert not found.isdisjoint({"0.weight", "3.weight"})
    assert protected_names({n: tuple(p.shape) for n, p in encoder.named_parameters() if p.dim() > 1}) == {}


def test_wrapper_prefixes_do_not_matter():
    assert matches("layer1.0", "module._orig_mod.layer1.0.weight")
    assert not matches("layer1.0", "layer1.01.weight")
