"""``kernel_report``: what a trained network learned, as a kernel."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bisparse.kernel_theory.evidence import Evidence, gather
from bisparse.kernel_theory.identities import Statement, all_statements
from bisparse.kernel_theory.jacobian import DEFAULT_MEMORY
from bisparse.kernel_theory.masked import Masks
from bisparse.kernel_theory.network import prepare
from bisparse.kernel_theory.numbers import KernelNumbers, feature_numbers, gradient_numbers
from bisparse.kernel_theory.predictions import held_out_errors
from bisparse.kernel_theory.targets import Loss, chosen_loss
from bisparse.report import Column, Table, TableReport, counted, to_plain
from bisparse.weights.select import Selectors

__all__ = ["KernelReport", "kernel_report"]

_MOST_ROWS = 4096


@dataclass(frozen=True, slots=True)
class KernelReport(TableReport):
    """A network at a data set, seen as a kernel machine.

    Attributes:
        examples: n, training examples.
        outputs: C.
        parameters: entries of the parameters that count.
        kept: those of them that no mask removes.
        loss: ``"squared"`` or ``"cross_entropy"``.
        penalty: λ of λ/2 |θ|².
        degree: L of homogeneity; ``None`` where there is none.
        gradient_norm: |g| of the penalised loss: 0 at a stationary point.
        interpolates: whether f(X) = y up to 1e-6.
        H: the feature kernel's numbers; ``None`` where the model has no last Linear layer.
        K: the gradient kernel's numbers.
        statements: every theorem, held against the network.
        held_out: name of the predictor to its mean squared error on held-out examples.
        notes: how the model was evaluated, why something is missing.
        seconds: wall time.
    """

    examples: int
    outputs: int
    parameters: int
    kept: int
    loss: str
    penalty: float
    degree: float | None
    gradient_norm: float
    interpolates: bool
    H: KernelNumbers | None
    K: KernelNumbers
    statements: tuple[Statement, ...]
    held_out: dict[str, float]
    notes: tuple[str, ...]
    seconds: float

    @property
    def gap(self) -> int | None:
        """Rank K - rank H: what the earlier layers' gradients can still reach; ``None`` without H or full K."""
        if self.H is None or self.K.size != self.examples * self.outputs:
            return None
        return self.K.rank - self.outputs * self.H.rank

    def __getitem__(self, name: str) -> Statement:
        """The statement of that name."""
        for statement in self.statements:
            if statement.name == name:
                return statement
        raise KeyError(f"{name!r}: there are {', '.join(statement.name for statement in self.statements)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        content: dict[str, Any] = to_plain(asdict(self))
        return content | {"gap": self.gap}

    def to_table(self) -> Table:
        """One line per theorem, then the kernels' numbers."""
        rows = [asdict(s) | {"holds": "yes" if s.applies else "no"} for s in self.statements]
        return Table(self._title(), _COLUMNS, rows, tuple(self._lines()))

    def plot(self, path: str | Path) -> Path:
        """Draw the eigenvalues, and how much of y the leading eigenvectors hold.

        Raises:
            ImportError: matplotlib is missing.
        """
        from bisparse.kernel_theory.report_plot import plot_report

        return plot_report(self, Path(path))

    def _title(self) -> str:
        size = (
            f"{counted(self.examples, 'example', 'examples')}, {counted(self.outputs, 'output', 'outputs')}"
        )
        kept = "" if self.kept == self.parameters else f", {self.kept:,} kept"
        return f"kernels of {counted(self.parameters, 'parameter', 'parameters')}{kept} on {size}"

    def _lines(self) -> list[str]:
        lines = [numbers.line() for numbers in (self.H, self.K) if numbers is not None]
        if self.gap is not None:
            lines.append(f"rank K - {'' if self.outputs == 1 else f'{self.outputs} '}rank H = {self.gap}")
        scaling = "not homogeneous" if self.degree is None else f"homogeneous of degree {self.degree:g}"
        lines.append(
            f"loss {self.loss}, penalty {self.penalty:g}, |gradient| {self.gradient_norm:.3g}, {scaling}"
            + (", interpolates" if self.interpolates else "")
        )
        if self.held_out:
            errors = ", ".join(f"{name} {error:.4g}" for name, error in self.held_out.items())
            lines.append(f"held-out mean squared error: {errors}")
        return lines + list(self.notes)


_COLUMNS = (
    Column("name", "statement"),
    Column("claim", "claim", "text", 3),
    Column("holds", "applies"),
    Column("error", "error", "number"),
    Column("error_held_out", "held-out", "number", 1),
    Column("certified", "certified", "number", 1),
    Column("reason", "remark", "text", 2),
)


def kernel_report(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    *,
    X_test: Tensor | None = None,
    y_test: Tensor | None = None,
    loss: Loss = "auto",
    penalty: float = 0.0,
    masks: Masks = None,
    params: Selectors | None = None,
    outputs: str = "auto",
    dtype: torch.dtype | None = torch.float64,
    memory: int = DEFAULT_MEMORY,
    rtol: float | None = None,
) -> KernelReport:
    """Hold the theorems about adaptive kernels against a trained network.

    Args:
        model: any module that maps (n, ...) to (n, ...) row by row; left as it is.
        X: (n, ...) training inputs; a few hundred.
        y: (n,) or (n, C) targets, or class numbers.
        X_test: (m, ...) held-out inputs, for predictions there.
        y_test: their targets, for errors there.
        loss: what was minimised: ``"squared"`` = |y - f|²/(2 n), ``"cross_entropy"`` = its mean; ``"auto"`` =
            cross-entropy for class numbers. ``F.mse_loss`` averages over outputs without the half: its weight
            decay w is penalty = w C/2 here.
        penalty: λ of λ/2 |θ|² on all parameters that count; the ``weight_decay`` of SGD with that loss.
        masks: ``None``, ``"zeros"`` (a pruned model: its zeros are masked) or names to masks; the theorems then
            hold with K_M, over the kept weights.
        params: parameters that were trained; ``None`` = all that require a gradient.
        outputs: ``"full"`` = K over all pairs of outputs, which most theorems need; ``"trace"`` = their sum;
            ``"auto"`` = full up to n C = 2048.
        dtype: of the computation; float64 keeps certificates at 1e-12.
        memory: bytes that derivatives may take.
        rtol: eigenvalues up to this share of the largest count as zero; ``None`` = 10 n times the precision.

    Returns:
        Ranks, dimensions, shares of y, and every theorem with its error, or the reason why it does not apply.

    Raises:
        ValueError: what ``prepare`` refuses; shapes that do not fit; a negative penalty; more than 4096 rows.

    Cost: the kernels and (n C)³. Source: Dou and Liang 2020; the identities for all layers, masks and
    cross-entropy are consequences of Euler's theorem, proved in the documents.
    """
    started = time.perf_counter()
    if penalty < 0:
        raise ValueError(f"penalty={penalty}: must be 0 or more")
    network = prepare(model, X, masks=masks, params=params, dtype=dtype)
    count = network.predict(X[:1]).shape[1]
    kind = chosen_loss(loss, torch.as_tensor(y), count)
    full = _is_full(outputs, len(X), count)
    held_out = None if X_test is None else (X_test, y_test)
    evidence = gather(
        network, X, torch.as_tensor(y), held_out,
        loss=kind, penalty=penalty, full=full, memory=memory, rtol=rtol,
    )  # fmt: skip
    return _report(evidence, all_statements(evidence), time.perf_counter() - started)


def _is_full(outputs: str, examples: int, count: int) -> bool:
    if outputs not in ("auto", "full", "trace"):
        raise ValueError(f"outputs={outputs!r}: use 'auto', 'full' or 'trace'")
    full = outputs == "full" or count == 1 or (outputs == "auto" and examples * count <= _MOST_ROWS // 2)
    rows = examples * count if full else examples
    if rows > _MOST_ROWS:
        raise ValueError(
            f"{rows} rows of K: decomposing more than {_MOST_ROWS} takes minutes; give fewer examples or "
            "outputs='trace'"
        )
    return full


def _report(evidence: Evidence, statements: tuple[Statement, ...], seconds: float) -> KernelReport:
    targets = evidence.targets
    notes = list(evidence.network.notes)
    if not evidence.full:
        notes.append("K is summed over outputs: most theorems need all pairs (outputs='full')")
    gradient = math.sqrt(sum(float(part.square().sum()) for part in evidence.gradient.values()))
    difference = float((targets - evidence.train.outputs).norm())
    return KernelReport(
        examples=evidence.count,
        outputs=targets.shape[1],
        parameters=sum(p.numel() for p in evidence.network.parameters.values()),
        kept=evidence.network.kept,
        loss=evidence.loss,
        penalty=evidence.penalty,
        degree=evidence.scaling.degree,
        gradient_norm=gradient,
        interpolates=difference <= 1e-6 * float(targets.norm()),
        H=feature_numbers(evidence),
        K=gradient_numbers(evidence),
        statements=statements,
        held_out=held_out_errors(evidence),
        notes=tuple(notes),
        seconds=seconds,
    )
