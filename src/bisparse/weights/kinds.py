"""Which parameters of a module are weights, and how each is read."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from bisparse.weights.layout import Layout

__all__ = ["module_layouts", "unsupported_reason"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_TRANSPOSES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)

# Expert classes of `transformers`, by name so that nothing is imported: x @ W (transposed) or x @ W.T.
_EXPERTS_TRANSPOSED = frozenset({"Llama4TextExperts", "GptOssExperts", "DbrxExpertGLU"})
_EXPERTS = frozenset(
    {
        "MixtralExperts",
        "Qwen2MoeExperts",
        "Qwen3MoeExperts",
        "DeepseekV3NaiveMoe",
        "Glm4MoeNaiveMoe",
        "GraniteMoeParallelExperts",
        "JetMoeParallelExperts",
    }
)


def _is_hf_conv1d(module: nn.Module) -> bool:
    return any(base.__name__ == "Conv1D" for base in type(module).__mro__) and hasattr(module, "nf")


def module_layouts(module: nn.Module) -> dict[str, Layout]:
    """Layouts of the weights that a module owns itself (not those of its children).

    Returns:
        Parameter name to layout. Stacked experts of an unknown class are listed as not oriented. Parameters
        that are absent (``None``), biases and norms are not listed.
    """
    own = {name: p for name, p in module._parameters.items() if p is not None}
    if isinstance(module, _CONVS):
        return {"weight": Layout("conv", module.groups)} if "weight" in own else {}
    if isinstance(module, _CONV_TRANSPOSES):
        return {"weight": Layout("conv_transpose", module.groups)} if "weight" in own else {}
    if _is_hf_conv1d(module):
        return {"weight": Layout("transposed")}
    if isinstance(module, nn.MultiheadAttention):
        fused = {"in_proj_weight": Layout("linear", 3)}
        split = {f"{letter}_proj_weight": Layout() for letter in "qkv"}
        return {name: layout for name, layout in {**fused, **split}.items() if name in own}
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return {name: Layout() for name in own if name.startswith("weight")}
    if isinstance(module, (nn.Linear, *_EMBEDDINGS)):
        return {"weight": Layout()} if "weight" in own else {}
    return _expert_layouts(module, own)


def _expert_layouts(module: nn.Module, own: dict[str, nn.Parameter]) -> dict[str, Layout]:
    """Layouts of stacked experts: three-dimensional parameters of a module whose class name says so."""
    names = {base.__name__ for base in type(module).__mro__}
    if names & _EXPERTS_TRANSPOSED:
        layout = Layout("experts_transposed")
    elif names & _EXPERTS:
        layout = Layout("experts")
    elif "expert" in type(module).__name__.lower():
        layout = Layout("experts", oriented=False)
    else:
        return {}
    return {
        name: layout for name, parameter in own.items() if not is_lazy(parameter) and parameter.dim() == 3
    }


def unsupported_reason(module: nn.Module, parameter: Tensor, *, sharded: bool = False) -> str | None:
    """Why this weight cannot be pruned as it is, with the remedy; ``None`` where it can.

    Args:
        module: its owner.
        parameter: the weight.
        sharded: whether the caller can work on distributed tensors.
    """
    if is_lazy(parameter):
        return "not initialised yet: run one forward pass of the lazy module first"
    if type(parameter) not in (nn.Parameter, Tensor) and not (sharded and hasattr(parameter, "placements")):
        kind = type(parameter).__name__
        return f"tensor subclass {kind} (quantised or sharded): load plain floating-point weights"
    if parameter.is_meta:
        return "on the meta device (offloaded or not loaded): load the weights into memory first"
    if not parameter.is_floating_point():
        return f"dtype {parameter.dtype} (quantised): dequantise to floating point first"
    if isinstance(module, ParametrizationList) or hasattr(module, "parametrizations"):
        return "parametrised: call torch.nn.utils.parametrize.remove_parametrizations first"
    return None
