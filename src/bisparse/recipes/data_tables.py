"""The section of a recipe that names a table of numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bisparse.recipes.base import Section
from bisparse.recipes.errors import RecipeError
from bisparse.train.examples import DataParts

__all__ = ["TabularData"]


class TabularData(Section):
    """Madelon, a subset of HIGGS, Isolet, leukemia or colon, standardised by the training part."""

    name: Literal["tabular"]
    table: Literal["madelon", "higgs", "isolet", "leukemia", "colon"]
    folder: str | None = Field(default=None, description="folder of real data; default: BISPARSE_DATA")
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of the training examples, of every class"
    )
    test_share: float = Field(
        default=0.25, gt=0, lt=1, description="where the table has no test part of its own"
    )
    division: int = Field(default=0, ge=0, description="seed of the divisions")

    def load(self) -> DataParts:
        """Read, divide and standardise; the divisions do not depend on the recipe's seed."""
        from bisparse.zoo.tabular import tabular

        options = self.model_dump(exclude={"name", "table"})
        try:
            return tabular(self.table, **options)
        except ValueError as error:
            raise RecipeError(f"data: {error}") from error
