"""Everything that may be chosen about a removal of filters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from bisparse.filters.baselines import FilterScores
from bisparse.filters.sensitivity import KernelReduction
from bisparse.filters.widths import Allocation, Selection

__all__ = ["FilterOptions", "Reconstruct"]

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
    reconstruct: Reconstruct = "rescale"
    samples: int | None = None
    multiple: int = 1
    delta: float = 1e-16
    seed: int = 0

    def __post_init__(self) -> None:
        choices: dict[str, Any] = {
            "scores": FilterScores,
            "selection": Selection,
            "kernel_reduction": KernelReduction,
            "reconstruct": Reconstruct,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: choose one of {', '.join(get_args(allowed))}"
                )
        if self.allocation is not None and self.allocation not in get_args(Allocation):
            raise ValueError(
                f"allocation={self.allocation!r}: choose one of {', '.join(get_args(Allocation))}"
            )
        if self.allocation == "eps" and self.scores != "pfp":
            raise ValueError(
                f"allocation='eps' needs sensitivities: scores={self.scores!r} are none; use 'uniform'"
            )
        if self.selection != "top" and self.reconstruct not in ("rescale", "none"):
            raise ValueError(f"selection={self.selection!r} reweights by itself: leave out reconstruct=")
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

    @property
    def allocated(self) -> Allocation:
        """How widths are found: by one eps for sensitivities, one price of errors for ``obs``, one ranking for Taylor,
        else uniformly.
        """
        default: Allocation = {"pfp": "eps", "obs": "error", "taylor": "global"}.get(self.scores, "uniform")  # type: ignore[assignment]
        return self.allocation or default

    def as_settings(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self) | {"allocation": self.allocated}
