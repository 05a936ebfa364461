"""What each tensor of a file is taken for, and why, when there is no code to ask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bisparse.weights import Layout

__all__ = ["FLOAT_TYPES", "Guess", "guess_all"]

FLOAT_TYPES = frozenset({"F16", "BF16", "F32", "F64"})

# Models of `transformers` whose matrices are `Conv1D`: stored (inputs, outputs), transposed against
# nn.Linear.
_CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})
_CONV1D_LEAVES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
_EXPERTS_TRANSPOSED_MODELS = frozenset(
    {"gpt_oss", "llama4", "llama4_text", "qwen3_vl_moe", "qwen3_vl_moe_text"}
)
_WEIGHT_LEAF = re.compile(r"weight|kernel|proj|^w\d*$|^fc\d*$", re.IGNORECASE)
_NO_WEIGHT = re.compile(
    r"bias|norm|embed(?!.*weight)|token$|_table$|scale|zero|mask|cached|inv_freq|running_|buffer|lora_|anchor",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Guess:
    """What one tensor was taken for.

    Attributes:
        taken_for: a short name, shown to the user: ``"linear"``, ``"conv"``, ``"bias or norm"`` ...; the kind
            of a layout where something is undecided.
        why: the evidence.
        layout: how it is read as matrices; ``None`` where it is no weight, or nobody can tell.
        undecided: ``""``, or what it might be instead. With a layout that is not oriented only the
            orientation is open; without a layout, the kind.
    """

    taken_for: str
    why: str
    layout: Layout | None = None
    undecided: str = ""


@dataclass(frozen=True, slots=True)
class _File:
    """What the rules may look at besides the tensor itself."""

    shapes: Mapping[str, tuple[int, ...]]
    config: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        found = self.config.get("model_type")
        return found if isinstance(found, str) else ""

    def number(self, *names: str) -> int | None:
        """The first of these numbers that the config (or its text part) gives."""
        inner = self.config.get("text_config")
        for part in (self.config, inner if isinstance(inner, Mapping) else {}):
            for name in names:
                if isinstance(part.get(name), int):
                    return int(part[name])
        return None

    def bias_length(self, name: str) -> int | None:
        """Length of the 1-D bias that belongs to a weight: the number of its outputs."""
        shape = self.shapes.get(_bias_of(name))
        return shape[0] if shape is not None and len(shape) == 1 else None


def _bias_of(name: str) -> str:
    return re.sub(r"(weight|kernel)(?!.*(weight|kernel))", "bias", name)


def guess_all(
    shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], config: Mapping[str, Any]
) -> dict[str, Guess]:
    """Judge every tensor by its name, shape and type, its bias, and the config.

    The length of a bias is the number of outputs and settles most orientations; a family of layers follows
    its proven members. What stays open is marked, never guessed in silence.

    Args:
        shapes: name to shape.
        dtypes: name to the format's type name.
        config: the parsed ``config.json``, or empty.

    Returns:
        A guess for every name.
    """
    file = _File(shapes, config)
    family = _conv1d_family(file)
    return {name: _guess(name, shape, dtypes[name], file, family) for name, shape in shapes.items()}


def _conv1d_family(file: _File) -> tuple[bool | None, str]:
    """Whether matrices called c_attn, c_proj, c_fc are transposed (``None``: not to be told), and why."""
    if file.model_type:
        transposed = file.model_type in _CONV1D_MODELS
        return transposed, f"config: model_type {file.model_type}"
    for name, shape in file.shapes.items():
        if len(shape) == 2 and _module_leaf(name) in _CONV1D_LEAVES and shape[0] != shape[1]:
            length = file.bias_length(name)
            if length in shape:
                proof = f"as {name.rpartition('.')[0]}, whose bias has {length} outputs"
                return length == shape[1], proof
    return None, ""


def _module_leaf(name: str) -> str:
    return name.rpartition(".")[0].rpartition(".")[2]


def _guess(
    name: str, shape: tuple[int, ...], dtype: str, file: _File, family: tuple[bool | None, str]
) -> Guess:
    leaf = name.rpartition(".")[2]
    if len(shape) < 2 or min(shape) == 0:
        return Guess("bias, norm or scalar", f"{len(shape)}-D")
    if dtype not in FLOAT_TYPES:
        return Guess("not floating point" if not dtype.startswith("F") else "quantised", f"type {dtype}")
    if _NO_WEIGHT.search(leaf):
        return Guess("no weight", f"by its name {leaf!r}")
    if not _WEIGHT_LEAF.search(leaf):
        return Guess("no weight", f"by its name {leaf!r}; if it is one, give --layout")
    if "lora_" in name:
        return Guess("adapter", "by its name")
    if len(shape) == 2:
        return _guess_matrix(name, shape, file, family)
    if len(shape) == 3:
        return _guess_3d(name, shape, file)
    return _guess_conv(name, shape, file)


def _guess_matrix(name: str, shape: tuple[int, ...], file: _File, family: tuple[bool | None, str]) -> Guess:
    if name.endswith("in_proj_weight") and shape[0] % 3 == 0 and shape[0] == 3 * shape[1]:
        return Guess("linear x3", "MultiheadAttention's in_proj", Layout("linear", 3))
    if name.rpartition(".")[2].endswith("kernel"):
        return Guess("transposed", "called kernel", Layout("transposed", oriented=False), "linear")
    if _module_leaf(name) in _CONV1D_LEAVES:
        transposed, proof = family
        if (
            not file.model_type
            and shape[0] != shape[1]
            and file.bias_length(name) == shape[int(bool(transposed))]
        ):
            proof = f"its bias has {file.bias_length(name)} outputs"
        if transposed is None:
            layout = Layout("linear", oriented=False)
            return Guess("linear", "a name of GPT-2, whose matrices are transposed", layout, "transposed")
        kind = "Conv1D (transposed)" if transposed else "linear"
        return Guess(kind, proof, Layout("transposed" if transposed else "linear"))
    length = file.bias_length(name)
    if length is not None and length == shape[1] != shape[0]:
        return Guess("linear, transposed", f"its bias has {length} outputs", Layout("transposed"))
    if "weight" not in name.rpartition(".")[2]:
        return Guess("linear", "2-D, a parameter of its own", Layout(oriented=False), "transposed")
    return Guess("linear", "2-D weight", Layout())


def _guess_conv(name: str, shape: tuple[int, ...], file: _File) -> Guess:
    if name.rpartition(".")[2].endswith("kernel"):
        return Guess("conv", "called kernel: channels may come last", None, "conv_transpose")
    if shape[1] == 1 and any(len(s) >= 4 and s[0] == shape[0] and s[1] > 1 for s in file.shapes.values()):
        return Guess("depthwise conv", "one input channel per group: nothing to choose from")
    length = file.bias_length(name)
    if length is not None and length == shape[1] != shape[0]:
        return Guess("transposed conv", f"its bias has {length} outputs", Layout("conv_transpose"))
    return Guess(f"conv{len(shape) - 2}d", f"{len(shape)}-D weight", Layout("conv"))


def _guess_3d(name: str, shape: tuple[int, ...], file: _File) -> Guess:
    if "expert" in name.lower():
        return _guess_experts(name, shape, file)
    if shape[1] == 1:
        return Guess("depthwise conv", "one input channel per group: nothing to choose from")
    if file.bias_length(name) == shape[0]:
        return Guess("conv1d", f"3-D, and its bias has {shape[0]} outputs", Layout("conv"))
    if re.search(r"conv", name, re.IGNORECASE):
        return Guess("conv1d", "3-D, and called conv", Layout("conv"))
    experts = file.number("num_experts", "num_local_experts", "n_routed_experts")
    if experts == shape[0]:
        return _guess_experts(name, shape, file)
    return Guess("conv", "3-D", None, "experts, experts_transposed")


def _guess_experts(name: str, shape: tuple[int, ...], file: _File) -> Guess:
    """Stacked experts: the config's widths say which axis is the input, else the model's family does."""
    hidden = file.number("hidden_size", "d_model")
    if hidden is not None and (shape[1] == hidden) != (shape[2] == hidden):
        reads_hidden = not re.search(r"down|w2|out", name.rpartition(".")[2], re.IGNORECASE)
        transposed = (shape[1] == hidden) == reads_hidden
        why = f"config: hidden_size {hidden} is its {'input' if reads_hidden else 'output'}"
        return _experts(transposed, why)
    if file.model_type in _EXPERTS_TRANSPOSED_MODELS:
        return _experts(True, f"config: model_type {file.model_type}")
    layout = Layout("experts", oriented=False)
    return Guess(
        "experts",
        "3-D, and called experts" if "expert" in name.lower() else "3-D",
        layout,
        "experts_transposed",
    )


def _experts(transposed: bool, why: str) -> Guess:
    if transposed:
        return Guess("experts (transposed)", why, Layout("experts_transposed"))
    return Guess("experts", why, Layout("experts"))
