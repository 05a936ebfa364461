"""A network made ready for kernels: a copy in evaluation mode, masked, with the parameters that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from bisparse.kernel_theory.masked import Masks, dense_copy, resolve_masks
from bisparse.weights.select import Selectors, as_selectors, check_names, matches

__all__ = ["Network", "Outputs", "prepare"]

Outputs: TypeAlias = "str | int | Sequence[int]"


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What kernels are computed from.

    Attributes:
        module: a copy of the model in evaluation mode, with masked entries at zero.
        parameters: name to parameter of that copy: those that the kernels differentiate by.
        masks: name to the kept entries, for those of them that have a mask.
        notes: what a reader must know about how the model was evaluated.
    """

    module: nn.Module
    parameters: dict[str, nn.Parameter]
    masks: dict[str, Tensor]
    notes: tuple[str, ...]

    @property
    def reference(self) -> Tensor:
        """One of the parameters: names the dtype and the device."""
        return next(iter(self.parameters.values()))

    @property
    def kept(self) -> int:
        """Entries of the parameters that no mask removes."""
        masked = {name: int(mask.sum()) for name, mask in self.masks.items()}
        return sum(masked.get(name, parameter.numel()) for name, parameter in self.parameters.items())

    def inputs(self, X: Tensor) -> Tensor:
        """Inputs on the network's device; floating ones in its dtype."""
        X = torch.as_tensor(X)
        return X.to(self.reference) if X.is_floating_point() else X.to(self.reference.device)

    def values(self) -> dict[str, Tensor]:
        """The parameters' values, detached."""
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def __call__(self, X: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Outputs (n, C), differentiable; with other values of the parameters where they are given."""
        result = (
            self.module(X) if parameters is None else functional_call(self.module, dict(parameters), (X,))
        )
        result = getattr(result, "logits", result)
        if not isinstance(result, Tensor) or result.dim() < 1 or len(result) != len(X):
            found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(
                f"the model must map {len(X)} inputs to a tensor with {len(X)} rows, got {found}: wrap it in a "
                "module that returns one"
            )
        return result.reshape(len(X), -1)

    @torch.no_grad()
    def predict(self, X: Tensor, *, batch: int = 512) -> Tensor:
        """Outputs (n, C) without gradients, in batches."""
        return torch.cat([self(part) for part in torch.split(self.inputs(X), batch)])

    def masked(self, name: str, value: Tensor) -> Tensor:
        """A tensor shaped like a parameter, zero where its mask is."""
        return value * self.masks[name] if name in self.masks else value


def prepare(
    model: nn.Module,
    X: Tensor | None = None,
    *,
    masks: Masks = None,
    params: Selectors | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Copy a model for kernels. The model itself is left as it is; cost: one copy of its parameters.

    Batch norm uses its running statistics and dropout is off, as in evaluation: the kernel of two examples must
    depend on these two only.

    Args:
        model: any module that maps (n, ...) inputs to (n, ...) outputs, row by row.
        X: some inputs, to check just that; ``None`` = no check.
        masks: see :func:`bisparse.kernel_theory.masked.resolve_masks`.
        params: parameters by name, glob, ``re:`` expression, module class or callable; ``None`` = all that
            require a gradient.
        dtype: of the computation, for example ``torch.float64``; ``None`` = as the model is.

    Raises:
        ValueError: nothing to differentiate by; a batch norm without running statistics; outputs that are random
            or mix examples; a mask that does not fit.
    """
    _refuse_batch_statistics(model)
    module, masks, sparse = dense_copy(model, masks)
    module, notes = module.eval(), _notes(module, sparse)
    if dtype is not None:
        module = module.to(dtype)
    parameters = _chosen(module, params)
    kept = resolve_masks(module, masks)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in parameters)
        if name in kept:
            parameter.data.mul_(kept[name].to(parameter.device))
    chosen_masks = {n: m.to(parameters[n].device) for n, m in kept.items() if n in parameters}
    network = Network(module, parameters, chosen_masks, notes)
    if X is not None:
        _check_rows(network, network.inputs(X[:3]))
    return network


def _chosen(module: nn.Module, params: Selectors | None) -> dict[str, nn.Parameter]:
    owners = {
        f"{path}.{name}".lstrip("."): owner
        for path, owner in module.named_modules()
        for name, _ in owner.named_parameters(recurse=False)
    }
    wanted = None if params is None else as_selectors(params)
    check_names(wanted or (), owners, "params")
    chosen = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.is_floating_point()
        and (
            parameter.requires_grad if wanted is None else any(matches(s, name, owners[name]) for s in wanted)
        )
    }
    if not chosen:
        raise ValueError("no parameter to differentiate by: all are frozen, or params= names none; name some")
    return chosen


def _refuse_batch_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"batch norm {name!r} has no running statistics, so its output for one example depends on the "
                "others and no kernel of two examples exists: use track_running_stats=True"
            )


def _notes(model: nn.Module, sparse: int) -> tuple[str, ...]:
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    drops = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
    ]
    notes = []
    if norms:
        notes.append(f"{len(norms)} batch norm(s) use their running statistics, as in evaluation")
    if drops:
        notes.append(f"{len(drops)} dropout layer(s) are off, as in evaluation")
    if sparse:
        notes.append(f"{sparse} sparse layer(s) count by their kept entries")
    return tuple(notes)


@torch.no_grad()
def _check_rows(network: Network, X: Tensor) -> None:
    """The network must be a function of one example."""
    try:
        joint, again = network(X), network(X)
    except RuntimeError as error:
        raise ValueError(f"the model does not accept inputs of shape {tuple(X.shape)}: {error}") from error
    if not bool(torch.isfinite(joint).all()):
        raise ValueError("the model's outputs contain NaN or infinity: are weights and inputs finite?")
    if not torch.equal(joint, again):
        raise ValueError(
            "the model gives different outputs for the same inputs in evaluation mode (dropout called as a "
            "function?): pass training=self.training to it"
        )
    alone = torch.cat([network(row) for row in torch.split(X, 1)])
    tolerance = 1e3 * torch.finfo(joint.dtype).eps * (1.0 + float(joint.abs().max()))
    if not torch.allclose(joint, alone, rtol=0.0, atol=tolerance):
        raise ValueError(
            "the model's output for one example depends on the other examples (batch statistics?): no kernel of two "
            "examples exists"
        )
