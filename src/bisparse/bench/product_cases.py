"""Which layers are timed, dense against packed: shape, pattern, type, tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch

from bisparse.acceleration.candidates import Mode
from bisparse.pattern import parse_pattern

__all__ = ["KEY", "ProductCase", "grid", "parse_shape", "shapes_of_file"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class ProductCase:
    """One row.

    Attributes:
        mode: ``"inference"`` (forward) or ``"training"`` (forward and backward, all gradients).
        rows: output features.
        columns: input features.
        pattern: as text.
        dtype: of weights and activations.
        tokens: rows of the input.
        threads: of PyTorch.
        cold: whether the weights come from memory, as in a model larger than the caches.
    """

    mode: Mode
    rows: int
    columns: int
    pattern: str
    dtype: str
    tokens: int
    threads: int
    cold: bool = True

    @property
    def torch_dtype(self) -> torch.dtype:
        """PyTorch's type.

        Raises:
            ValueError: an unknown name.
        """
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype {self.dtype!r}: packed products take {' and '.join(_DTYPES)}")
        return _DTYPES[self.dtype]

    def row(self) -> dict[str, str | int | float | bool | None]:
        """The case as key columns."""
        return asdict(self)


KEY = tuple(ProductCase.__dataclass_fields__)


def parse_shape(text: str) -> tuple[int, int]:
    """``"4096x1024"``: rows (outputs) and columns (inputs); ``"2048"`` is square.

    Raises:
        ValueError: text of another form.
    """
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if match is None or not int(match[1]) or match[2] == "0":
        raise ValueError(f"cannot read the shape {text!r}: write outputs x inputs, for example 4096x1024")
    return int(match[1]), int(match[2] or match[1])


def shapes_of_file(path: str | Path) -> list[tuple[int, int, str]]:
    """Rows, columns and pattern of every different N:M matrix of a checkpoint.

    Raises:
        CheckpointError: the file is unreadable.
        ValueError: it holds no N:M matrix.
    """
    from bisparse.files import open_checkpoint
    from bisparse.files.packed.plan import decide

    with open_checkpoint(path) as checkpoint:
        rulings = decide(checkpoint, pattern=None, signed_zeros=False, threads=1)
    codings = [ruling.coding for ruling in rulings.values() if ruling.coding is not None]
    found = [
        (c.shape[0], c.shape[1], c.text)
        for c in codings
        if len(c.shape) == 2 and c.kind == "combination" and c.axis
    ]
    if not found and any(coding.kind == "combination" for coding in codings):
        raise ValueError(
            f"{path}: its N:M weights are no (outputs, inputs) matrices, and only these are timed here; for "
            "convolutions and transposed weights use bisparse.accelerate on the model, or --shapes"
        )
    if not found:
        raise ValueError(
            f"{path} holds no N:M matrix: prune it first, for example bisparse prune {path} -p 4:8"
        )
    return list(dict.fromkeys(found))


def grid(
    mode: Mode,
    shapes: Iterable[tuple[int, int, str]],
    *,
    dtypes: Sequence[str],
    tokens: Sequence[int],
    threads: int,
    cold: bool = True,
) -> Iterator[ProductCase]:
    """Every combination, the tokens of one layer together; patterns and types are checked first.

    Raises:
        ValueError: an unknown pattern or type.
    """
    wanted = [(rows, columns, str(parse_pattern(pattern))) for rows, columns, pattern in shapes]
    cases = [
        ProductCase(mode, rows, columns, pattern, dtype, count, threads, cold)
        for dtype, (rows, columns, pattern), count in product(dtypes, wanted, tokens)
    ]
    for case in cases:
        _ = case.torch_dtype  # refuses unknown types before anything is measured
    yield from cases
