"""Everything that may be chosen about a removal of filters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from bisparse.filters.baselines import FilterScores
from bisparse.filters.sensitivity import KernelReduction
from bisparse.filters.widths import Allocation, Selection
from bisparse.pattern import Pattern, Unstructured

__all__ = ["FilterOptions", "Reconstruct", "with_block"]

Reconstruct: TypeAlias = Literal[
    "rescale", "none", "bias", "least_squares", "bias+distill", "least_squares+distill"
]


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Validated options; see :func:`bisparse.prune_filters_` for their meaning."""

    scores: FilterScores = "pfp"
    selection: Selection = "top"
    allocation: Allocation | None = None
    kernel_reduction: KernelReduction = "sum"
    reconstruct: Reconstruct | None = None
    samples: int | None = None
    multiple: int = 1
    delta: float = 1e-16
    seed: int = 0

    def __post_init__(self) -> None:
        choices: dict[str, Any] = {
            "scores": FilterScores,
            "selection": Selection,
            "kernel_reduction": KernelReduction,
            "reconstruct": (*get_args(Reconstruct), None),
            "allocation": (*get_args(Allocation), None),
        }
        for name, allowed in choices.items():
            values = allowed if isinstance(allowed, tuple) else get_args(allowed)
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: choose one of {', '.join(filter(None, values))}"
                )
        self._check_of_pfp()
        if self.allocation == "eps" and self.scores != "pfp":
            raise ValueError(
                f"allocation='eps' needs sensitivities: scores={self.scores!r} are none; use 'uniform'"
            )
        if self.selection != "top" and self.reconstruct not in ("rescale", "none", None):
            raise ValueError(f"selection={self.selection!r} reweights by itself: leave out reconstruct=")
        if self.selection != "top" and self.scores == "obs":
            raise ValueError(
                f"selection={self.selection!r} draws in proportion to scores: those of scores='obs' say in which order "
                "units go; use 'top'"
            )
        if self.allocation == "error" and self.scores != "obs":
            raise ValueError(f"allocation='error' needs scores='obs', which are errors; got {self.scores!r}")
        for name, least in (("multiple", 1), ("samples", 2), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        if self.selection != "top" and self.multiple > 1:
            raise ValueError(
                f"selection={self.selection!r} draws, so that widths are no multiples of {self.multiple}: use 'top'"
            )
        if not 0 < self.delta < 1:
            raise ValueError(f"delta={self.delta}: a probability of failure lies strictly between 0 and 1")

    def _check_of_pfp(self) -> None:
        """What only sensitivities have must not be asked of other scores."""
        if self.scores == "pfp":
            return
        asked = [
            name
            for name in ("samples", "delta", "kernel_reduction")
            if getattr(self, name) != _DEFAULTS[name]
        ]
        if self.reconstruct == "rescale":
            asked.append("reconstruct='rescale'")
        if asked:
            raise ValueError(f"{', '.join(asked)}: only scores='pfp' has them; got scores={self.scores!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> FilterOptions:
        """Options by name.

        Raises:
            TypeError: an unknown name; says which are known.
            ValueError: a value that makes no sense, or contradicts another.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                guess = f"did you mean {close[0]}=? " if close else ""
                raise TypeError(f"unknown option {name}=: {guess}Known options: {', '.join(known)}")
        return cls(**options)

    @property
    def allocated(self) -> Allocation:
        """How widths are found: by one eps for sensitivities, one price of errors for ``obs``, one ranking for Taylor,
        else uniformly.
        """
        default: Allocation = {"pfp": "eps", "obs": "error", "taylor": "global"}.get(self.scores, "uniform")  # type: ignore[assignment]
        return self.allocation or default

    @property
    def reconstructed(self) -> Reconstruct:
        """How layers make up for what is missing: sensitivities by one factor, eliminations by a fit, others not."""
        default: Reconstruct = {"pfp": "rescale", "obs": "least_squares"}.get(self.scores, "none")  # type: ignore[assignment]
        return self.reconstruct or default

    def as_settings(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self) | {"allocation": self.allocated, "reconstruct": self.reconstructed}


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(FilterOptions)}


def with_block(options: Mapping[str, Any], pattern: Pattern | None) -> dict[str, Any]:
    """Options whose widths fit the blocks of the pattern that follows.

    Args:
        options: of :class:`FilterOptions` and more; without ``multiple``, it becomes the pattern's block.
        pattern: for what is left; ``None`` = none follows.

    Raises:
        ValueError: ``multiple`` is no multiple of the block.
    """
    if pattern is None or isinstance(pattern, Unstructured):
        return dict(options)
    multiple = options.get("multiple", pattern.block)
    if isinstance(multiple, int) and multiple % pattern.block:
        raise ValueError(
            f"multiple={multiple} with then={str(pattern)!r}: widths would not fit its blocks; leave multiple= out, or "
            f"take a multiple of {pattern.block}"
        )
    return {**options, "multiple": multiple}
