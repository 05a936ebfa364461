"""One weight that is masked at rest: what the parameter shows, and what it hides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bisparse.masks.result import Duals
from bisparse.pattern import Pattern
from bisparse.train import device
from bisparse.train.measures.bits import pack
from bisparse.train.sharding import Sharding, local
from bisparse.weights import Layout, Weight

__all__ = ["MaskedWeight", "hide_", "reveal_"]


@dataclass(slots=True, eq=False)
class MaskedWeight:
    """A weight W whose parameter holds W*E outside of the optimizer's step.

    Tensors are those of this process: shaped like the parameter, or like its shard.

    Attributes:
        name: dotted name of the parameter in the model, without wrappers such as ``module.``.
        module: the module that owns it.
        parameter_name: its name there.
        layout: how it is read as matrices.
        pattern: what its mask obeys in the end (a ramp may ask for less on the way).
        prepared: the pattern of ``prepare``; a topology may move density from one weight to another.
        shape: of the whole weight.
        parameter: what the model and the optimizer see.
        mask: E as booleans, True = kept.
        dropped: 1 - E. In the parameter's dtype on the CPU, where a product of mixed types costs three times
            as much; boolean elsewhere.
        hidden: what the parameter does not show; (1-E)*W for rules that mask.
        duals: potentials of the last solve, from which the next one starts.
        extra: what a rule or topology keeps for this weight; divided among processes like the weight where it has
            the weight's shape, else the same on every process.
        fired: every entry that a mask has kept so far, as packed bits; empty before the first mask.
        learned: what a rule trains along with the weight, by name; the optimizer holds it too.
        average: moving average of W, where masks are learnt from one.
        sharding: how the weight is divided among processes; ``None`` = every process has it all.
        steps: completed optimizer steps.
        refreshes: masks chosen so far.
        is_dense: the mask is all ones, so that nothing needs to be hidden.
        version: of the parameter when ``prepare`` was done with it; ``None`` from the first step on.
        checked: the parameter was seen to be masked since the last change from outside.
    """

    name: str
    module: nn.Module
    parameter_name: str
    layout: Layout
    pattern: Pattern
    prepared: Pattern
    shape: tuple[int, ...]
    parameter: nn.Parameter
    mask: Tensor
    dropped: Tensor
    hidden: Tensor
    duals: Duals | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    fired: Tensor | None = None
    learned: dict[str, nn.Parameter] = field(default_factory=dict)
    average: Tensor | None = None
    sharding: Sharding | None = None
    steps: int = 0
    refreshes: int = 0
    is_dense: bool = True
    version: int | None = None
    checked: bool = False

    @classmethod
    def of(cls, weight: Weight, name: str, pattern: Pattern) -> MaskedWeight:
        """A dense start: nothing dropped, nothing hidden."""
        values = local(weight.parameter.detach())
        return cls(
            name=name,
            module=weight.module,
            parameter_name=weight.parameter_name,
            layout=weight.layout,
            pattern=pattern,
            prepared=pattern,
            shape=tuple(weight.parameter.shape),
            parameter=weight.parameter,
            mask=torch.ones_like(values, dtype=torch.bool),
            dropped=_stored(torch.zeros_like(values, dtype=torch.bool), values),
            hidden=torch.zeros_like(values),
            sharding=Sharding.of(weight.parameter),
        )

    @property
    def values(self) -> Tensor:
        """This process's part of the parameter, without autograd."""
        return local(self.parameter.detach())

    @property
    def gradient(self) -> Tensor | None:
        """This process's part of the gradient."""
        gradient = self.parameter.grad
        return None if gradient is None else local(gradient)

    def set_mask(self, mask: Tensor | None) -> None:
        """Take over a mask of this process's part; ``None`` keeps everything."""
        self.is_dense = mask is None
        if mask is None:
            self.mask.fill_(True)
            self.dropped.zero_()
            self.hidden.zero_()
        else:
            self.mask.copy_(mask)
            self.dropped.copy_(mask.logical_not())

    def fire_(self, mask: Tensor) -> None:
        """Note what a mask keeps among all that was ever kept."""
        bits = pack(mask)
        self.fired = bits if self.fired is None else self.fired | bits

    def check_masked(self) -> None:
        """Raise, once, where the parameter is not masked.

        Raises:
            ValueError: dropped entries are not zero: somebody else has written the parameter.
        """
        if self.checked or self.is_dense:
            return
        if bool((self.values * self.dropped).any().item()):
            raise ValueError(
                f"{self.name}: entries that the mask drops are not zero, so the weight was replaced after prepare "
                "(a loaded checkpoint, or DistributedDataParallel with other initial weights on rank 0): prepare "
                "after that, or load the sparsifier's state along with the model's. If another sparsifier has the "
                "weight as well: squash_mask() there first"
            )
        self.checked = True

    def follow(self) -> None:
        """Go where the parameter went (``model.to(...)`` changes parameters in place)."""
        values = self.values
        if self.hidden.device == values.device and self.hidden.dtype == values.dtype:
            return
        self.mask = self.mask.to(values.device)
        self.dropped = _stored(self.mask.logical_not(), values)
        self.hidden = self.hidden.to(values)
        if self.average is not None:
            self.average = self.average.to(values)
        for parameter in self.learned.values():
            parameter.data = parameter.data.to(values.device)
        self.extra = {key: tensor.to(values.device) for key, tensor in self.extra.items()}
        self.fired = None if self.fired is None else self.fired.to(values.device)


def _stored(dropped: Tensor, like: Tensor) -> Tensor:
    return dropped.to(like.device, like.dtype if device.on_cpu(like) else torch.bool)


def reveal_(weights: Sequence[MaskedWeight]) -> None:
    """W*E becomes W: add what is hidden. Exact, because the two never overlap."""
    if weights:
        torch._foreach_add_([w.values for w in weights], [w.hidden for w in weights])


def hide_(weights: Sequence[MaskedWeight]) -> None:
    """W becomes W*E; what is dropped is kept aside in ``hidden``."""
    if not weights:
        return
    values, hidden, dropped = (
        list(ts) for ts in zip(*((w.values, w.hidden, w.dropped) for w in weights), strict=True)
    )
    if device.on_cpu(values[0]):  # one pass less; elsewhere few launches count more
        for value, out, drop in zip(values, hidden, dropped, strict=True):
            torch.mul(value, drop, out=out)
    else:
        torch._foreach_copy_(hidden, values)
        torch._foreach_mul_(hidden, dropped)
    torch._foreach_sub_(values, hidden)
