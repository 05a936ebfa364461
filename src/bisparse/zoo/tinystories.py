"""Short stories as token windows, with the byte-pair tokenizer of llama2.c."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bisparse.zoo.folder import data_file
from bisparse.zoo.llama import Llama

__all__ = ["StoryTokenizer", "language_loss", "tinystories"]

_START = 1
_FIRST_BYTE = 3


class StoryTokenizer:
    """Byte-pair encoding by scores: of all neighbouring pairs, the merged token of the highest score goes
    first.
    """

    def __init__(self, path: str | Path) -> None:
        content = Path(path).read_bytes()
        self.tokens: list[bytes] = []
        scores: list[float] = []
        position = 4  # the length of the longest token, not needed
        while position < len(content):
            score, length = struct.unpack_from("<fi", content, position)
            position += 8
            self.tokens.append(content[position : position + length])
            scores.append(score)
            position += length
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        self._scores = scores
        self._words: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids, beginning with the start token.

        No token has a blank behind its first character, so each word is merged by itself, and only once.
        """
        ids = [_START]
        for word in text.split(" ") if text else []:
            if word not in self._words:
                self._words[word] = self._merged(" " + word)
            ids += self._words[word]
        return ids

    def _merged(self, text: str) -> list[int]:
        ids: list[int] = []
        for character in text:
            piece = character.encode()
            found = self._ids.get(piece)
            ids += [found] if found is not None else [byte + _FIRST_BYTE for byte in piece]
        while (best := self._best_merge(ids)) is not None:
            index, merged = best
            ids[index : index + 2] = [merged]
        return ids

    def _best_merge(self, ids: list[int]) -> tuple[int, int] | None:
        merges = [
            (self._scores[found], -index, found)
            for index in range(len(ids) - 1)
            if (found := self._ids.get(self.tokens[ids[index]] + self.tokens[ids[index + 1]])) is not None
        ]
        if not merges:
            return None
        _, index, found = max(merges)
        return -index, found


def tinystories(
    length: int = 256, count: int | None = None, folder: str | Path | None = None
) -> tuple[Tensor, Tensor]:
    """The first ``length`` tokens of each story, padded at the end.

    Args:
        length: tokens per story at most.
        count: how many stories; ``None`` = all (149).
        folder: folder of real data.

    Returns:
        (stories, length) int64 token ids and the same shape's boolean attention mask, False at padding.

    Raises:
        FileNotFoundError: text or tokenizer is not in the folder.
    """
    tokenizer = StoryTokenizer(data_file("tinyllama/tok512.bin", folder))
    text = data_file("tinyllama/tinystories_clean.txt", folder).read_text(encoding="utf-8")
    stories = [piece.strip() for piece in text.split("<|endoftext|>") if piece.strip()][:count]
    rows = [tokenizer.encode(story)[:length] for story in stories]
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = True
    return ids, mask


@torch.no_grad()
def language_loss(model: Llama, ids: Tensor, mask: Tensor, batch: int = 16) -> float:
    """Mean cross-entropy per predicted token, in nats; padding is left out."""
    total, count = 0.0, 0
    for tokens, valid in zip(torch.split(ids, batch), torch.split(mask, batch), strict=True):
        logits = model(tokens)[:, :-1][valid[:, 1:]]
        total += float(F.cross_entropy(logits, tokens[:, 1:][valid[:, 1:]], reduction="sum"))
        count += len(logits)
    return total / max(count, 1)
