"""Stories that a small Llama writes itself: calibration data where there is little text."""

from __future__ import annotations

import torch
from torch import Tensor

from bisparse.zoo.generation import Decoder
from bisparse.zoo.llama import Llama

__all__ = ["write_stories"]

_START = 1


def write_stories(model: Llama, count: int, length: int = 256, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw stories token by token from the model's own distribution.

    Args:
        model: in evaluation mode.
        count: how many stories.
        length: tokens per story; shorter where the model begins another one.
        seed: of the draws.

    Returns:
        (count, length) int64 token ids that begin with the start token, and the same shape's boolean mask, False
        behind the end of a story.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder, tokens = Decoder(model, length, count), [torch.full((count, 1), _START)]
    for _ in range(length - 1):
        probabilities = decoder.step(tokens[-1]).softmax(-1)
        tokens.append(torch.multinomial(probabilities, 1, generator=generator))
    ids = torch.cat(tokens, 1)
    mask = (ids == _START).cumsum(1) == 1
    return ids * mask, mask
