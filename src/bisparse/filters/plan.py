"""What is kept of every tensor: a small record that turns the large model into the small one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.compress.write_report import replace_text

__all__ = ["FilterPlan", "apply_plan", "apply_plan_", "load_plan", "save_plan", "tensors_of"]


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """A removal of filters.

    Attributes:
        kept: name of a parameter or buffer to dimension to the indices that are kept there, ascending.
        shapes: name of each of these tensors to its shape before.
        attributes: name of a module to its integer attributes that change with them (heads, padded channels).
    """

    kept: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        kept = {name: {str(d): list(ids) for d, ids in dims.items()} for name, dims in self.kept.items()}
        return {
            "kept": kept,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "attributes": {name: dict(values) for name, values in self.attributes.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FilterPlan:
        """The inverse of :meth:`to_dict`."""
        missing = [key for key in ("kept", "shapes", "attributes") if key not in content]
        if missing:
            raise ValueError(f"it has no {missing[0]!r}")
        kept = {
            name: {int(d): tuple(ids) for d, ids in dims.items()} for name, dims in content["kept"].items()
        }
        shapes = {name: tuple(shape) for name, shape in content["shapes"].items()}
        if shapes.keys() != kept.keys():
            raise ValueError(f"no shape of {sorted(shapes.keys() ^ kept.keys())[:3]}")
        return cls(kept, shapes, {name: dict(values) for name, values in content["attributes"].items()})

    def then(self, later: FilterPlan) -> FilterPlan:
        """Both removals as one plan for the original model.

        Args:
            later: made for what this plan leaves.

        Raises:
            ValueError: it was made for other shapes.
        """
        kept = {name: dict(dims) for name, dims in self.kept.items()}
        shapes = dict(self.shapes)
        for name, dims in later.kept.items():
            mine = kept.setdefault(name, {})
            before = shapes.setdefault(name, later.shapes[name])
            left = _left(before, mine)
            if later.shapes[name] != left:
                raise ValueError(
                    f"{name} is {left} after the first plan, the later one was made for {later.shapes[name]}"
                )
            for dim, ids in dims.items():
                mine[dim] = tuple(mine[dim][i] for i in ids) if dim in mine else tuple(ids)
        paths = [*self.attributes, *later.attributes]
        attributes = {
            path: {**self.attributes.get(path, {}), **later.attributes.get(path, {})} for path in paths
        }
        return FilterPlan(kept, shapes, attributes)


def save_plan(plan: FilterPlan, path: str | Path) -> Path:
    """Write a plan as JSON; an old file is replaced only when the new one is complete.

    Raises:
        TypeError: not a plan.
    """
    if not isinstance(plan, FilterPlan):
        raise TypeError(f"a {type(plan).__name__} is no filter plan: pass report.plan")
    path = Path(path)
    replace_text(path, json.dumps(plan.to_dict()))
    return path


def load_plan(path: str | Path) -> FilterPlan:
    """Read a plan.

    Raises:
        ValueError: the file is no plan.
    """
    try:
        return FilterPlan.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is no filter plan: {error}; name what save_plan wrote, or OUT.plan.json of bisparse filters"
        ) from None


@torch.no_grad()
def apply_plan_(model: nn.Module, plan: FilterPlan) -> nn.Module:
    """Make the tensors of a freshly built model as small as the plan says; then the small checkpoint fits::

        model = apply_plan_(build(), load_plan("small.plan.json"))
        model.load_state_dict(torch.load("small.pt"))

    Parameters are replaced, so an optimizer must be made afterwards. Tied parameters stay tied.

    Args:
        model: of the class and sizes that the plan was made for.
        plan: what to keep.

    Returns:
        The model.

    Raises:
        ValueError: a tensor is missing, or of another shape than the plan was made for; the model is unchanged then.
    """
    _check(model, plan)
    made: dict[
        int, Tensor
    ] = {}  # by what they take the place of, and by themselves: a module may have two names
    touched: set[str] = set()
    for name, dims in plan.kept.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        old: Tensor = getattr(module, leaf)
        if id(old) not in made:
            small = _sliced(old, dims)
            made[id(old)] = made[id(small)] = small
        if isinstance(old, nn.Parameter):
            module._parameters[leaf] = made[id(old)]  # type: ignore[assignment]
        else:
            module._buffers[leaf] = made[id(old)]
        touched.add(path)
    for path in touched:
        _resize(model.get_submodule(path))
    for path, values in plan.attributes.items():
        for attribute, value in values.items():
            setattr(model.get_submodule(path), attribute, value)
    return model


def apply_plan(model: nn.Module, plan: FilterPlan) -> nn.Module:
    """Like :func:`apply_plan_`, on a copy."""
    import copy

    return apply_plan_(copy.deepcopy(model), plan)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every name that they have."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _check(model: nn.Module, plan: FilterPlan) -> None:
    tensors = tensors_of(model)
    for name, dims in plan.kept.items():
        if name not in tensors:
            raise ValueError(
                f"the plan names {name}, which the model lacks: apply it to the model it was made for"
            )
        shape, before = tuple(tensors[name].shape), plan.shapes[name]
        if shape == before:
            continue
        applied = shape == _left(before, dims)
        remedy = "the plan was applied already" if applied else "build the model that was pruned"
        raise ValueError(f"{name} is {shape}, the plan was made for {before}: {remedy}")


def _left(shape: tuple[int, ...], kept: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a tensor of which only these indices are kept."""
    return tuple(len(kept.get(dim, range(size))) for dim, size in enumerate(shape))


def _sliced(tensor: Tensor, dims: Mapping[int, tuple[int, ...]]) -> Tensor:
    value = tensor.detach()
    for dim, ids in dims.items():
        value = value.index_select(dim, torch.tensor(ids, device=value.device))
    value = value.clone()
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _resize(module: nn.Module) -> None:
    """Set the sizes that a module knows about itself to those of its tensors."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        groups = module.groups
        if groups > 1 and module.in_channels == groups:  # depthwise: as many groups as channels
            module.groups = weight.shape[0] * groups // module.out_channels
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = len(weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif hasattr(module, "nf"):
        vars(module).update(nx=weight.shape[0], nf=weight.shape[1])
