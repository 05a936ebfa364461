"""Small tables of numbers: the benchmarks of feature selection and of sparse training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bisparse.train.examples import DataParts, Pairs
from bisparse.zoo.folder import data_file

__all__ = ["TABLES", "TableName", "stratified", "tabular"]

TableName: TypeAlias = Literal["madelon", "higgs", "isolet", "leukemia", "colon"]
TABLES: tuple[TableName, ...] = get_args(TableName)


def tabular(
    name: TableName,
    *,
    folder: str | Path | None = None,
    held_out: float = 0.1,
    test_share: float = 0.25,
    division: int = 0,
) -> DataParts:
    """One table, divided with equal shares of the classes, standardised by what is learnt from alone.

    ========  ======  ========  =======  =====================================================
    name      inputs  examples  classes  test part
    ========  ======  ========  =======  =====================================================
    madelon   500     2600      2        its 600 validation examples, as in the literature
    higgs     28      15 000    2        its 5000 test examples (a subset of UCI HIGGS)
    isolet    617     1560      26       ``test_share`` of the examples
    leukemia  7070    72        2        ``test_share``
    colon     2000    62        2        ``test_share``
    ========  ======  ========  =======  =====================================================

    Args:
        name: which.
        folder: of real data (see :func:`bisparse.zoo.folder.data_file`); its subfolder ``tabular`` holds the files.
        held_out: share of the training examples that becomes the validation part.
        test_share: share of the examples that becomes the test part, where the table has none of its own.
        division: seed of both divisions, the same on every machine.

    Returns:
        Inputs (n, features) float32 with mean 0 and standard deviation 1 over the training part (features that are
        constant there are only centred), labels (n,) int64 from 0.

    Raises:
        ValueError: an unknown name, a share outside (0, 1), or one that leaves a class without an example in a part.
        FileNotFoundError: the file is not in the folder.
        ImportError: a MATLAB file and no SciPy; it comes with the extra ``bisparse[train]``.
    """
    if name not in TABLES:
        raise ValueError(f"{name!r} is none of the tables {', '.join(TABLES)}")
    table = _READERS[name](folder)
    rest, test = table.train, table.test
    if test is None:
        rest, test = _divided(table.train, test_share, division)
    train, validation = _divided(rest, held_out, division + 1)
    standardised = _standardiser(train.inputs)
    return DataParts(*(Pairs(standardised(part.inputs), part.targets) for part in (train, validation, test)))


def stratified(labels: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Divide at random, every class by the same share: the numbers that stay, and those that are taken.

    Args:
        labels: (n,) int64.
        share: of every class that is taken, rounded to whole examples.
        seed: the same seed gives the same division on every machine.

    Raises:
        ValueError: a share outside (0, 1), or one that leaves a class without an example in one of the parts.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share={share}: must lie strictly between 0 and 1")
    generator = torch.Generator().manual_seed(seed)
    stay, taken = [], []
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        count = round(share * len(members))
        if count in (0, len(members)):
            raise ValueError(
                f"share={share} of the {len(members)} examples of class {label} leaves one part empty"
            )
        mixed = members[torch.randperm(len(members), generator=generator)]
        taken.append(mixed[:count])
        stay.append(mixed[count:])
    return torch.cat(stay).sort().values, torch.cat(taken).sort().values


@dataclass(frozen=True, slots=True)
class _Table:
    train: Pairs
    test: Pairs | None = None


def _divided(whole: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    parts = stratified(whole.targets, share, seed)
    first, second = (Pairs(whole.inputs[numbers], whole.targets[numbers]) for numbers in parts)
    return first, second


def _standardiser(inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """In float64, so that no order of summation shows; features without spread are only centred."""
    numbers = inputs.double()
    mean, spread = numbers.mean(0), numbers.std(0, correction=0)
    spread[spread < 1e-12] = 1.0
    return lambda part: ((part.double() - mean) / spread).float()


def _pairs(inputs: npt.NDArray[np.generic], labels: npt.NDArray[np.generic]) -> Pairs:
    """Labels become numbers from 0, in the order of their values."""
    _, numbers = np.unique(labels, return_inverse=True)
    return Pairs(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(numbers.reshape(-1)).long())


def _archive(file: str, train: str, test: str) -> Callable[[str | Path | None], _Table]:
    """A reader of a numpy archive with two parts."""

    def read(folder: str | Path | None) -> _Table:
        with np.load(data_file(f"tabular/{file}", folder), allow_pickle=False) as content:
            first, second = (_pairs(content[f"x_{part}"], content[f"y_{part}"]) for part in (train, test))
        return _Table(first, second)

    return read


def _matlab(file: str) -> Callable[[str | Path | None], _Table]:
    """A reader of a MATLAB file with one part, X (n, features) and Y (n, 1)."""

    def read(folder: str | Path | None) -> _Table:
        path = data_file(f"tabular/{file}", folder)
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise ImportError("MATLAB files are read by SciPy: pip install 'bisparse[train]'") from error
        content = loadmat(path, variable_names=["X", "Y"])
        return _Table(_pairs(content["X"], content["Y"]))

    return read


_READERS: dict[TableName, Callable[[str | Path | None], _Table]] = {
    "madelon": _archive("madelon.npz", "train", "valid"),
    "higgs": _archive("higgs_10k_5k.npz", "train", "test"),
    "isolet": _matlab("Isolet.mat"),
    "leukemia": _matlab("leukemia.mat"),
    "colon": _matlab("colon.mat"),
}
