"""A text file as characters, for small language models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bisparse.train.examples import Batch

__all__ = ["CharText", "char_text"]


@dataclass(frozen=True, slots=True)
class CharText:
    """Windows of a text. Example i begins at i * length, moved by a random offset below length while training.

    Attributes:
        codes: (characters,) uint8 or int64, numbers of the characters in ``alphabet``.
        alphabet: all distinct characters of the whole text, sorted.
        length: characters per window.
    """

    codes: Tensor
    alphabet: str
    length: int

    def __len__(self) -> int:
        # One window less than fits, so that the offset and the last target stay inside.
        return (len(self.codes) - 1) // self.length - 1

    def batch(self, chosen: Tensor, generator: torch.Generator | None) -> Batch:
        """(b, length) int64 characters and the same shape of characters that follow them."""
        begin = chosen * self.length
        if generator is not None:
            begin = begin + torch.randint(self.length, begin.shape, generator=generator)
        windows = self.codes[begin[:, None] + torch.arange(self.length + 1)].long()
        return windows[:, :-1], windows[:, 1:]

    def decode(self, codes: Tensor) -> str:
        """Numbers back to text."""
        return "".join(self.alphabet[int(code)] for code in codes.flatten())


def char_text(
    path: str | Path, part: Literal["train", "validation", "test"] = "train", *, length: int = 64
) -> CharText:
    """The first 80%, the next 10% or the last 10% of a text (the last is customary to test on tinyshakespeare).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the part is too short for two windows.
    """
    text = Path(path).read_text(encoding="utf-8")
    alphabet = "".join(sorted(set(text)))
    numbers = {character: number for number, character in enumerate(alphabet)}
    dtype = torch.uint8 if len(alphabet) <= 256 else torch.int64
    codes = torch.tensor([numbers[character] for character in text], dtype=dtype)
    begin, end = {"train": (0, 8), "validation": (8, 9), "test": (9, 10)}[part]
    whole = CharText(codes, alphabet, length)
    chosen = replace(whole, codes=codes[len(codes) * begin // 10 : len(codes) * end // 10])
    if len(chosen) < 1:
        raise ValueError(
            f"{path}: {len(chosen.codes)} characters of {part} do not fill two windows of {length}"
        )
    return chosen
