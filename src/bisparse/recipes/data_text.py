"""Sections of a recipe that name texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bisparse.recipes.base import Section
from bisparse.train.examples import DataParts, Examples, hold_out

__all__ = ["DatasetsData", "TextData"]


class TextData(Section):
    """A text file, character by character; its last tenth is for testing, the tenth before held out."""

    name: Literal["text"]
    file: str = Field(
        default="text/tinyshakespeare.txt", description="a path, or a name in the folder BISPARSE_DATA"
    )
    length: int = Field(default=64, ge=2, description="characters per window")

    def load(self) -> DataParts:
        """Read and divide."""
        from bisparse.zoo.char_text import char_text
        from bisparse.zoo.folder import data_file

        path = Path(self.file) if Path(self.file).is_file() else data_file(self.file)
        return DataParts(
            char_text(path, "train", length=self.length),
            char_text(path, "validation", length=self.length),
            char_text(path, "test", length=self.length),
        )


class DatasetsData(Section):
    """A local folder of Hugging Face's ``datasets``; the model returns its own loss."""

    name: Literal["datasets"]
    folder: str
    tokenizer: str = Field(description="a local folder of transformers; usually the model's")
    task: Literal["classification", "question-answering", "language"]
    texts: list[str] = Field(
        ["text"], min_length=1, max_length=2, description="columns of the text, or the pair"
    )
    label: str = "label"
    length: int = Field(default=384, ge=2, description="tokens per example")
    stride: int = Field(default=128, ge=0, description="tokens that windows of question-answering share")
    train: str = "train"
    test: str | None = "validation"
    held_out: int = Field(default=1000, ge=1)

    def load(self) -> DataParts:
        """Read, tokenise and divide."""
        from bisparse.recipes.errors import RecipeError
        from bisparse.zoo.hf_datasets import local_dataset
        from bisparse.zoo.tokens import load_tokenizer

        splits, tokenizer = local_dataset(self.folder), load_tokenizer(self.tokenizer)
        missing = [name for name in (self.train, self.test) if name is not None and name not in splits]
        if missing:
            raise RecipeError(f"data: {self.folder} has no split {missing[0]!r}; it has {', '.join(splits)}")
        train, validation = hold_out(self._examples(tokenizer, splits[self.train]), self.held_out)
        test = None if self.test is None else self._examples(tokenizer, splits[self.test])
        return DataParts(train, validation, test)

    def _examples(self, tokenizer: Any, rows: Mapping[str, Any]) -> Examples:
        from bisparse.zoo.tokens import answer_spans, labelled_texts, text_blocks

        if self.task == "question-answering":
            return answer_spans(tokenizer, rows, length=self.length, stride=self.stride)
        texts = [list(rows[name]) for name in self.texts]
        if self.task == "language":
            return text_blocks(tokenizer, texts[0], self.length)
        return labelled_texts(tokenizer, texts, list(rows[self.label]), self.length)
