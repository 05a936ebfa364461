"""What is guaranteed about a family's selection."""

from __future__ import annotations

from bisparse.filters.bound import provable_error, top_error
from bisparse.filters.families import Family
from bisparse.filters.report import FamilyReport
from bisparse.filters.widths import Choice, Scored

__all__ = ["family_report"]


def family_report(
    family: Family, values: Scored, choice: Choice, kappa: float | None, delta: float
) -> FamilyReport:
    """One line of the report.

    Args:
        family: the coupled channels.
        values: what they are worth.
        choice: which stay.
        kappa: by how much shares of unseen samples may exceed the sensitivities; ``None``: the scores are none.
        delta: probability of failure.
    """
    readers = tuple(dict.fromkeys(product.weight.rpartition(".")[0] for product in family.read))
    kept = int(choice.kept.sum())
    if kappa is None:
        return FamilyReport(family.name, readers, len(family), kept)
    eps = _proven(values, choice, kappa, delta)
    return FamilyReport(
        family.name,
        readers,
        len(family),
        kept,
        total=values.total,
        draws=choice.draws,
        kappa=kappa,
        eps=eps,
        vacuous=eps >= 1 or kept == len(family),
        kept_share=float(values.probabilities[choice.kept].sum()),
    )


def _proven(values: Scored, choice: Choice, kappa: float, delta: float) -> float:
    """The relative error of the outputs of every layer that reads the family."""
    if choice.kept.all():
        return 0.0
    if choice.sampled:
        sampled = values.total * choice.sampled
        return provable_error(choice.draws, sampled, delta=delta, outputs=values.outputs, kappa=kappa)
    scale = float(choice.scales[choice.kept].max(initial=1.0))
    return top_error(float(values.scores[~choice.kept].sum()), scale, kappa)
