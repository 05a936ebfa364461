"""The section of a recipe that names the data: one class for each kind, told apart by ``name``."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from bisparse.recipes.data_images import Cifar10Data, DigitsData, FolderData, MnistData
from bisparse.recipes.data_tables import TabularData
from bisparse.recipes.data_text import DatasetsData, TextData

__all__ = ["DataSection"]

DataSection: TypeAlias = Annotated[
    DigitsData | MnistData | Cifar10Data | FolderData | TabularData | TextData | DatasetsData,
    Field(discriminator="name"),
]
