"""Tokenised texts with their labels, as the keyword arguments of ``transformers`` models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bisparse.train.examples import Batch

__all__ = ["TokenTable", "answer_spans", "labelled_texts", "load_tokenizer", "text_blocks"]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Columns of equal length; two-dimensional ones are padded at the end, and cut to a batch's longest row.

    Attributes:
        columns: name to (n,) or (n, length) int32; must contain ``attention_mask``.
    """

    columns: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.columns["attention_mask"])

    def batch(self, chosen: Tensor, generator: torch.Generator | None) -> Batch:  # noqa: ARG002
        """Keyword arguments, int64."""
        longest = int(self.columns["attention_mask"][chosen].sum(1).max())
        return {
            name: (column[chosen, :longest] if column.dim() == 2 else column[chosen]).long()
            for name, column in self.columns.items()
        }


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a local folder, with a padding token.

    Raises:
        ImportError: ``transformers`` is missing; the message names the extra.
        OSError: the folder holds no tokenizer.
    """
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise ImportError('tokenizers need transformers: pip install "bisparse[transformers]"') from error
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def labelled_texts(
    tokenizer: Any, texts: Sequence[Sequence[str]], labels: Sequence[int], length: int
) -> TokenTable:
    """Texts, or pairs of texts, with a class each: ``input_ids``, ``attention_mask``, ``labels`` and so on."""
    columns = _padded(tokenizer(*texts, truncation=True, max_length=length, padding="max_length"))
    return TokenTable({**columns, "labels": torch.tensor(labels, dtype=torch.int32)})


def text_blocks(tokenizer: Any, texts: Sequence[str], length: int) -> TokenTable:
    """Texts joined by the end-of-text token and cut into blocks of ``length``, for causal language models.

    Raises:
        ValueError: less text than one block.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    codes = [code for text in texts for code in (*tokenizer(text)["input_ids"], *end)]
    blocks = len(codes) // length
    if not blocks:
        raise ValueError(f"{len(codes)} tokens do not fill one block of {length}: choose a shorter length")
    rows = torch.tensor(codes[: blocks * length], dtype=torch.int32).reshape(blocks, length)
    return TokenTable({"input_ids": rows, "attention_mask": torch.ones_like(rows), "labels": rows})


def answer_spans(
    tokenizer: Any, rows: Mapping[str, Sequence[Any]], *, length: int = 384, stride: int = 128
) -> TokenTable:
    """Questions about texts, in the form of SQuAD: windows over the text, with the first and last token of the answer.

    Args:
        tokenizer: a fast one (it must give offsets).
        rows: columns ``question``, ``context`` and ``answers`` (mappings with ``text`` and ``answer_start``).
        length: tokens of a window, question included.
        stride: tokens that neighbouring windows share.

    Returns:
        Windows with ``start_positions`` and ``end_positions``; both 0 (the first token) where the window does not
        contain the whole answer.

    Source: Devlin et al., "BERT", 2019, section 4.2.
    """
    windows = tokenizer(
        list(rows["question"]),
        list(rows["context"]),
        truncation="only_second",
        max_length=length,
        stride=stride,
        padding="max_length",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    sources, offsets = windows.pop("overflow_to_sample_mapping"), windows.pop("offset_mapping")
    spans = [
        _span(rows["answers"][source], offsets[number], windows.sequence_ids(number))
        for number, source in enumerate(sources)
    ]
    starts, ends = torch.tensor(spans, dtype=torch.int32).unbind(1)
    return TokenTable({**_padded(windows), "start_positions": starts, "end_positions": ends})


def _padded(encoding: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(values, dtype=torch.int32) for name, values in encoding.items()}


def _span(
    answer: Mapping[str, Any], offsets: Sequence[tuple[int, int]], parts: Sequence[int | None]
) -> tuple[int, int]:
    """First and last token of the first answer, (0, 0) where they are not both in the window's text."""
    if not answer["text"]:
        return 0, 0
    begin = answer["answer_start"][0]
    end = begin + len(answer["text"][0])
    inside = [token for token, part in enumerate(parts) if part == 1]
    covered = [token for token in inside if offsets[token][0] < end and offsets[token][1] > begin]
    if not covered or offsets[covered[0]][0] > begin or offsets[covered[-1]][1] < end:
        return 0, 0
    return covered[0], covered[-1]
