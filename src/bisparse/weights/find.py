"""The weights of a model: which are chosen, how each is read, and why the others are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from bisparse.weights.kinds import module_layouts, unsupported_reason
from bisparse.weights.layout import Layout
from bisparse.weights.select import Selector, Selectors, as_selectors, check_names, is_block_weight, matches

__all__ = ["LeftOut", "Weight", "WeightSelection", "find_weights"]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """One chosen weight of a model.

    Attributes:
        name: dotted name of the parameter, for example ``"layer1.0.conv1.weight"``.
        module_name: dotted name of the module that owns it (``""`` for the model itself).
        parameter_name: its name inside that module.
        module: that module.
        parameter: the parameter itself; shared by all its ``aliases``.
        layout: how it is read as matrices.
        reason: why it is chosen.
        aliases: further dotted names of the same tied parameter.
    """

    name: str
    module_name: str
    parameter_name: str
    module: nn.Module
    parameter: nn.Parameter
    layout: Layout
    reason: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A weight that is not chosen, and why."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class WeightSelection:
    """All weights of a model, chosen or left out, each with its reason; iterates over the chosen ones."""

    chosen: tuple[Weight, ...]
    left_out: tuple[LeftOut, ...]

    def __iter__(self) -> Iterator[Weight]:
        return iter(self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, name: str) -> Weight:
        """The chosen weight of that parameter name, alias or module name."""
        for weight in self.chosen:
            names = (weight.name, *weight.aliases)
            if name in names or name in [known.rpartition(".")[0] for known in names]:
                return weight
        raise KeyError(name)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    name: str
    module_name: str
    parameter_name: str
    module: nn.Module
    parameter: nn.Parameter
    layout: Layout | None


def _candidates(model: nn.Module, layouts: Mapping[str, Layout]) -> Iterator[_Candidate]:
    """Every parameter of two or more dimensions, tied ones once per name."""
    for module_name, module in model.named_modules(remove_duplicate=False):
        known = module_layouts(module)
        for parameter_name, parameter in module._parameters.items():
            if parameter is None or (unsupported_reason(module, parameter) is None and parameter.dim() < 2):
                continue
            name = f"{module_name}.{parameter_name}".lstrip(".")
            layout = layouts.get(name, known.get(parameter_name))
            if layout is None and (is_lazy(parameter) or parameter.dim() < 2):
                continue
            yield _Candidate(name, module_name, parameter_name, module, parameter, layout)


def _shape(candidate: _Candidate) -> tuple[int, ...]:
    return () if is_lazy(candidate.parameter) else tuple(candidate.parameter.shape)


def _protected(model: nn.Module, candidates: list[_Candidate]) -> dict[int, str]:
    """What ``ignore=None`` protects: parameter id to reason."""
    reasons: dict[int, str] = {}
    for candidate in candidates:
        if isinstance(candidate.module, (nn.Embedding, nn.EmbeddingBag)):
            reasons[id(candidate.parameter)] = "embedding"
    convs = [c for c in candidates if isinstance(c.module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    if convs:
        reasons.setdefault(id(convs[0].parameter), "first convolution")
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(output, nn.Module):
        for parameter in output.parameters(recurse=False):
            reasons.setdefault(id(parameter), "output embedding")
        return reasons
    linears = [c for c in candidates if isinstance(c.module, nn.Linear)]
    if linears and not is_block_weight(linears[-1].name, {c.name: _shape(c) for c in linears}):
        reasons.setdefault(id(linears[-1].parameter), "last classifier")
    elif not linears and len(convs) > 1 and "classifier" in convs[-1].module_name:
        reasons.setdefault(id(convs[-1].parameter), "last classifier")
    return reasons


def find_weights(
    model: nn.Module,
    targets: Selectors | None = None,
    ignore: Selectors | None = None,
    *,
    layouts: Mapping[str, Layout] | None = None,
    sharded: bool = False,
) -> WeightSelection:
    """Choose the weights of a model that a pattern is to be applied to.

    Args:
        model: any module. Known: Linear, Conv1d/2d/3d and their transposes, MultiheadAttention, RNN/LSTM/GRU
            and their cells, ``transformers``' Conv1D, stacked experts, embeddings.
        targets: what to choose (see :func:`bisparse.weights.matches`); ``None`` = every known weight.
        ignore: what to leave out. ``None`` protects the first convolution, the last classifier or output
            embedding, and embeddings; a list replaces that; ``[]`` protects nothing.
        layouts: layouts by parameter name, for parameters of classes that the library does not know.
        sharded: also choose distributed tensors (FSDP2, tensor parallelism).

    Returns:
        The chosen weights in the model's order and, for each other parameter of two or more dimensions, the
        reason why it is left out. Tied weights appear once, under their first name; a tied weight is left out
        as soon as one of its names is.

    Raises:
        ValueError: a string in ``targets`` or ``ignore`` matches no weight.
    """
    wanted = None if targets is None else as_selectors(targets)
    unwanted = () if ignore is None else as_selectors(ignore)
    candidates = list(_candidates(model, layouts or {}))
    owners: dict[str, nn.Module | None] = {c.name: c.module for c in candidates}
    check_names(wanted or (), owners, "targets")
    check_names(unwanted, owners, "ignore")
    protected = _protected(model, candidates) if ignore is None else {}
    chosen: list[Weight] = []
    left_out: list[LeftOut] = []
    ties: dict[int, list[_Candidate]] = {}
    for candidate in candidates:
        ties.setdefault(id(candidate.parameter), []).append(candidate)
    for group in ties.values():
        first = next((c for c in group if c.layout is not None), group[0])
        reason = _left_out_reason(group, first, wanted, unwanted, protected, sharded)
        if reason is None and first.layout is not None:
            aliases = tuple(c.name for c in group if c is not first)
            why = (
                f"{type(first.module).__name__}"
                if wanted is None
                else f"{type(first.module).__name__}, in targets"
            )
            owner = (first.name, first.module_name, first.parameter_name, first.module, first.parameter)
            chosen.append(Weight(*owner, first.layout, why, aliases))
        else:
            left_out.extend(LeftOut(c.name, _shape(first), reason or "unknown") for c in group)
    return WeightSelection(tuple(chosen), tuple(left_out))


def _left_out_reason(
    group: list[_Candidate],
    first: _Candidate,
    wanted: tuple[Selector, ...] | None,
    unwanted: tuple[Selector, ...],
    protected: Mapping[int, str],
    sharded: bool,
) -> str | None:
    """Why a (possibly tied) weight is left out; ``None`` where it is chosen."""
    if wanted is not None and not any(matches(s, c.name, c.module) for s in wanted for c in group):
        return "not in targets"
    if any(matches(s, c.name, c.module) for s in unwanted for c in group):
        return "in ignore"
    if id(first.parameter) in protected:
        return f"protected: {protected[id(first.parameter)]} (ignore=[] to prune it too)"
    if (reason := unsupported_reason(first.module, first.parameter, sharded=sharded)) is not None:
        return reason
    if first.parameter_name.endswith(("_orig", "_v")):
        return "re-parametrised: call torch.nn.utils.prune.remove or remove_weight_norm first"
    if first.layout is None:
        kind = type(first.module).__name__
        return f"parameter of {kind}, a class of unknown layout: pass layouts={{{first.name!r}: ...}}"
    return None
