"""Which tensors are pruned: the default protection, targets and ignore, ties, layouts, refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bisparse.files import CheckpointError, open_checkpoint
from bisparse.files.layout_option import parse_layouts
from bisparse.files.selection import choose
from bisparse.pattern import parse_pattern
from bisparse.weights import Layout


def _chosen(path: Path, pattern: str = "2:4t", **options: object) -> list[str]:
    with open_checkpoint(path) as checkpoint:
        choices = choose(checkpoint, parse_pattern(pattern), **options)  # type: ignore[arg-type]
        return [choice.name for choice in choices if choice.chosen]


def _reasons(path: Path, **options: object) -> dict[str, str]:
    with open_checkpoint(path) as checkpoint:
        choices = choose(checkpoint, parse_pattern("2:4t"), **options)  # type: ignore[arg-type]
        return {choice.name: choice.left_out for choice in choices if not choice.chosen}


def _save(path: Path, shapes: Mapping[str, tuple[int, ...]], config: object = None) -> Path:
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, path)
    if config is not None:
        (path.parent / "config.json").write_text(json.dumps(config))
    return path


def test_targets_and_ignore(mlp_file: Path) -> None:
    assert _chosen(mlp_file) == ["fc1.weight", "fc2.weight"]
    assert _chosen(mlp_file, ignore=[]) == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert _chosen(mlp_file, ignore=["fc1"]) == ["fc2.weight", "fc3.weight"]
    assert _chosen(mlp_file, targets=["re:fc[12]"]) == ["fc1.weight", "fc2.weight"]
    assert _chosen(mlp_file, targets="*1.weight") == ["fc1.weight"]
    reasons = _reasons(mlp_file, targets=["fc2"])
    assert reasons["fc1.weight"] == "not in targets"
    assert reasons["fc1.bias"].endswith("(1-D)")
    assert "classifier" in _reasons(mlp_file)["fc3.weight"]


def test_misspelt_names_are_errors(mlp_file: Path) -> None:
    with pytest.raises(ValueError, match="ignore='fc9' matches no weight"):
        _chosen(mlp_file, ignore=["fc9"])
    with pytest.raises(ValueError, match="targets"):
        _chosen(mlp_file, targets=["nothing.*"])
    with pytest.raises(ValueError, match="layout"):
        _chosen(mlp_file, layout=["fc9=linear"])
    with pytest.raises(CheckpointError, match="nothing to prune"):
        _chosen(mlp_file, ignore=["*"])


def test_layers_of_a_language_model_have_no_last_classifier(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": (64, 16)}
    shapes |= {f"model.layers.{i}.mlp.down_proj.weight": (16, 32) for i in range(12)}
    path = _save(tmp_path / "lm.safetensors", shapes)
    assert len(_chosen(path)) == 12
    path = _save(tmp_path / "lm2.safetensors", shapes | {"lm_head.weight": (64, 16)})
    assert len(_chosen(path)) == 12
    assert "output embedding" in _reasons(path)["lm_head.weight"]


def test_one_shard_of_a_language_model_has_no_classifier_either(tmp_path: Path) -> None:
    shapes = {f"model.layers.{i}.mlp.{part}.weight": (16, 16) for i in (7, 8) for part in ("up", "down")}
    assert len(_chosen(_save(tmp_path / "shard.safetensors", shapes))) == 4


def test_the_vocabulary_size_finds_embeddings(tmp_path: Path) -> None:
    shapes = {"tok.weight": (64, 16), "a.weight": (16, 16), "b.weight": (16, 16)}
    path = _save(tmp_path / "lm.safetensors", shapes, {"vocab_size": 64})
    assert _reasons(path)["tok.weight"] == "protected: embedding or output embedding: vocab_size rows"


def test_where_nothing_is_left_to_prune_the_reasons_are_named(tmp_path: Path) -> None:
    path = _save(tmp_path / "one.safetensors", {"a.weight": (16, 16), "a.bias": (16,)})
    with pytest.raises(CheckpointError, match="nothing to prune") as caught:
        _chosen(path)
    assert "a.weight: protected: last classifier" in str(caught.value)
    assert str(caught.value).endswith("a.bias: bias, norm or scalar (1-D) (--ignore '' protects nothing)")
    assert len(_chosen(path, ignore=[])) == 1


def test_the_last_layer_by_number_not_by_letter(tmp_path: Path) -> None:
    path = _save(tmp_path / "seq.safetensors", {f"{i}.weight": (8, 8) for i in range(0, 12, 2)})
    assert list(_reasons(path)) == ["10.weight"]


def test_a_tie_is_pruned_whole_or_not_at_all(tmp_path: Path) -> None:
    shared = torch.randn(32, 16)
    tensors = {"a.weight": shared, "b.weight": torch.randn(16, 16), "lm_head.weight": shared}
    torch.save(tensors, tmp_path / "tied.pt")
    assert _chosen(tmp_path / "tied.pt", ignore=["lm_head"]) == ["b.weight"]
    assert _chosen(tmp_path / "tied.pt", targets=["lm_head"], ignore=[]) == ["a.weight"]
    config = {"tie_word_embeddings": True}
    shapes = {"wte.weight": (32, 16), "lm_head.weight": (32, 16), "x.weight": (16, 16)}
    path = _save(tmp_path / "tied.safetensors", shapes, config)
    assert _reasons(path, ignore=["wte"])["lm_head.weight"] == "tied to wte.weight, which stays"


def test_ambiguity_is_refused_only_where_it_matters(tmp_path: Path) -> None:
    shapes = {"h.0.attn.c_attn.weight": (16, 48), "h.1.attn.c_attn.weight": (16, 48), "wte.weight": (64, 16)}
    path = _save(tmp_path / "gpt.safetensors", shapes)
    assert len(_chosen(path, "2:4t")) == 2
    with open_checkpoint(path) as checkpoint:
        first = choose(checkpoint, parse_pattern("2:4t"))[0]
    assert first.why.endswith("; 2:4t needs no orientation")
    assert first.reading == "linear or transposed"
    assert len(_chosen(path, "unstructured:0.5")) == 2
    message = (
        r"\(and 1 more\) can be read in several ways .* --layout 'h\.\*\.attn\.c_attn\.weight=linear' "
        r"\(or transposed\).*; 2:4t needs no orientation"
    )
    with pytest.raises(CheckpointError, match=message):
        _chosen(path, "2:4")
    assert len(_chosen(path, "2:4", layout=["*.c_attn=transposed"])) == 2
    assert len(_chosen(path, "2:4", layout="transposed")) == 2

    path = _save(
        tmp_path / "three.safetensors", {"mix.weight": (4, 8, 8), "fc.weight": (8, 8), "x.weight": (8, 8)}
    )
    with pytest.raises(CheckpointError, match=r"=conv' \(or experts, experts_transposed\)"):
        _chosen(path, "2:4t")
    assert "mix.weight" in _chosen(path, "2:4t", layout={"mix": "experts"})
    assert "mix.weight" in _chosen(path, "unstructured:0.5")


def test_a_named_parameter_is_a_weight(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.safetensors", {"body.weight": (8, 8), "table": (8, 8), "last.weight": (8, 8)})
    assert _chosen(path) == ["body.weight"]
    assert _chosen(path, targets=["table"]) == ["table"]
    with pytest.raises(CheckpointError, match="several ways"):
        _chosen(path, "2:4", targets=["table"])


def test_layout_texts() -> None:
    assert parse_layouts("experts")[0].layout == Layout("experts")
    assert parse_layouts(["a.*=conv:32"])[0].layout == Layout("conv", 32)
    assert parse_layouts({"a": Layout("linear", 3)})[0].selector == "a"
    assert parse_layouts(Layout("transposed"))[0].selector is None
    assert parse_layouts(None) == ()
    for wrong in ("a=diagonal", "conv:x", "a="):
        with pytest.raises(ValueError, match="cannot read the layout"):
            parse_layouts(wrong)


def test_a_layout_that_does_not_fit(mlp_file: Path) -> None:
    with pytest.raises(ValueError, match="has 2 dimensions"):
        _chosen(mlp_file, layout=["fc1.weight=experts"])


def test_real_networks(real_data) -> None:
    resnet = real_data("resnet_cifar10/resnet20-12fca82f.th")
    reasons = _reasons(resnet)
    assert len(_chosen(resnet)) == 18
    assert "first convolution" in reasons["module.conv1.weight"]
    assert "classifier" in reasons["module.linear.weight"]
    assert _chosen(resnet, targets=["layer3"]) == [
        n for n in _chosen(resnet) if n.startswith("module.layer3")
    ]
    llama = real_data("tinyllama/stories260K.pt")
    assert len(_chosen(llama)) == 35
    assert "embedding" in _reasons(llama)["tok_embeddings.weight"]
