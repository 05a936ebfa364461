"""Filters that are really removed: sensitivities with a guarantee, coupled channels, smaller networks."""

from __future__ import annotations

from bisparse.filters.budget import Budget, parse_budget
from bisparse.filters.cascade import CascadeReport, prune_and_retrain_
from bisparse.filters.plan import FilterPlan, apply_plan, apply_plan_, load_plan, save_plan
from bisparse.filters.prune import FilterPruned, prune_filters, prune_filters_
from bisparse.filters.report import FamilyReport, FilterReport, Totals

__all__ = [
    "Budget",
    "CascadeReport",
    "FamilyReport",
    "FilterPlan",
    "FilterPruned",
    "FilterReport",
    "Totals",
    "apply_plan",
    "apply_plan_",
    "load_plan",
    "parse_budget",
    "prune_and_retrain_",
    "prune_filters",
    "prune_filters_",
    "save_plan",
]
