"""The entry to the solvers: what it accepts, what it refuses and how it says so, and where it runs."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import bisparse as bs

GOOD = torch.arange(64.0).reshape(8, 8)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (GOOD - 1, ValueError, r"scores\[0, 0\] = -1.0: scores must not be negative.*abs\(\)"),
        (GOOD.clone().index_put_((torch.tensor(3), torch.tensor(5)), torch.tensor(float("nan"))), ValueError,
         r"scores\[3, 5\] = nan: scores must be finite"),
        (GOOD / 0, ValueError, r"scores\[0, 0\] = nan"),
        (GOOD.log(), ValueError, r"scores\[0, 0\] = -inf: scores must be finite"),
        (torch.ones(8), ValueError, r"shape \(8,\).*at least two dimensions"),
        (GOOD.to_sparse(), TypeError, "sparse.*dense"),
        (GOOD.to(torch.complex64), TypeError, "real numbers"),
        (GOOD.to("meta"), TypeError, "meta"),
        ([[1.0, 2.0]], TypeError, "list"),
        (np.array([["a"]]), TypeError, "real numbers"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pattern", ["2:4t", "2:4", "unstructured:0.5"])
def test_bad_scores_are_refused_by_name(
    scores: Tensor, error: type[Exception], message: str, pattern: str
) -> None:
    with pytest.raises(error, match=message):
        bs.solve_mask(scores, pattern)


def test_the_first_bad_entry_of_a_batch_is_named() -> None:
    scores = torch.ones(2, 3, 8, 8)
    scores[1, 2, 7, 0] = float("inf")
    for method in ("exact", "greedy"):
        with pytest.raises(ValueError, match=r"scores\[1, 2, 7, 0\] = inf"):
            bs.solve_mask(scores, "4:8t", method=method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'; choose one of exact, greedy"),
        ({"pattern": "2:4", "method": "greedy"}, "transposable patterns only, not 2:4"),
        ({"pattern": "2:4", "return_duals": True}, "exact transposable masks only"),
        ({"method": "greedy", "return_duals": True}, "exact transposable masks only"),
        ({"threads": 0}, "positive integer"),
        ({"pattern": "5:4t"}, "5:4"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    pattern = options.pop("pattern", "2:4t")
    with pytest.raises(ValueError, match=message):
        bs.solve_mask(GOOD, pattern, **options)  # type: ignore[arg-type]


def test_a_warm_start_must_fit() -> None:
    with pytest.raises(ValueError, match="no duals"):
        bs.solve_mask(GOOD, "2:4t", warm_start=bs.solve_mask(GOOD, "2:4t"))
    other = bs.solve_mask(torch.ones(8, 12), "2:4t", return_duals=True)
    with pytest.raises(ValueError, match=r"\(2, 12\).*needs \(1, 2, 8\)"):
        bs.solve_mask(GOOD, "2:4t", warm_start=other)
    broken = bs.Duals(torch.zeros(8, 2), torch.full((2, 8), float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        bs.solve_mask(GOOD, "2:4t", warm_start=broken)


@pytest.mark.parametrize("method", ["exact", "greedy", "two_approx", "entropic", "flow"])
def test_every_method_returns_a_feasible_mask_and_says_what_it_kept(method: str) -> None:
    scores = torch.rand(20, 24, generator=torch.Generator().manual_seed(0))
    result = bs.solve_mask(scores, "4:8t", method=method)
    found = bs.verify_mask(result.mask, "4:8t", scores=scores)
    assert found.feasible or method == "two_approx"  # which keeps at most N per line
    assert result.objective == pytest.approx(found.objective)
    assert result.objective <= bs.solve_mask(scores, "4:8t").objective * (1 + 1e-7)
    assert (result.gap == 0) == (method == "exact")
    assert result.method == method
    assert 0 < result.density <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.uint64, np.bool_, ">f4"]
)
def test_arrays_of_every_real_dtype(dtype: str) -> None:
    array = (np.arange(64).reshape(8, 8) % 7 % 3).astype(dtype)
    array.flags.writeable = False
    result = bs.solve_mask(
        array, "2:4t"
    )  # ties may fall differently in float32 and float64: compare the objective
    assert bs.verify_mask(result.mask, "2:4t").feasible
    assert result.objective == bs.solve_mask(torch.tensor(array.astype("f8")), "2:4t").objective


def test_float8_scores_are_widened() -> None:
    scores = GOOD.to(torch.float8_e4m3fn)
    assert bs.solve_mask(scores, "2:4t").objective == bs.solve_mask(scores.float(), "2:4t").objective


def test_scores_that_require_grad_are_left_alone() -> None:
    weight = GOOD.clone().requires_grad_()
    result = bs.solve_mask(weight, "2:4t")
    assert not result.mask.requires_grad
    assert torch.equal(weight.detach(), GOOD)


def test_an_empty_matrix_has_an_empty_mask() -> None:
    for shape in ((0, 8), (8, 0), (0, 4, 4)):
        result = bs.solve_mask(torch.zeros(shape), "2:4t", return_duals=True)
        assert result.mask.shape == shape
        assert (result.objective, result.gap, result.density) == (0, 0, 0)


class Masks(Dataset[Tensor]):
    """Solves in the worker process, where a thread pool of the parent would hang."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return bs.solve_mask(self.scores, "4:8t", threads=2).mask


def test_solving_in_a_data_loader_worker() -> None:
    scores = torch.rand(512, 512, generator=torch.Generator().manual_seed(1))
    expected = bs.solve_mask(scores, "4:8t", threads=2).mask
    loader = DataLoader(Masks(scores), num_workers=2, multiprocessing_context="fork")
    assert all(torch.equal(batch[0], expected) for batch in loader)


def in_fork(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a hang is a failure, not a wait
        try:
            os._exit(0 if work() else 3)
        except BaseException:
            os._exit(4)
    return os.waitpid(child, 0)[1] == 0


def test_solving_after_a_fork() -> None:
    scores = torch.rand(512, 512, generator=torch.Generator().manual_seed(2))
    expected = bs.solve_mask(scores, "8:16t", threads=3).mask.numpy()
    # numpy compares: torch's own OpenMP pool does not survive a fork
    assert in_fork(lambda: bool((bs.solve_mask(scores, "8:16t", threads=3).mask.numpy() == expected).all()))


def test_fewer_threads_do_the_work_where_the_system_starts_no_more() -> None:
    scores = torch.rand(2048, 2048, generator=torch.Generator().manual_seed(3))
    expected = bs.solve_mask(scores, "2:4t", threads=1).mask.numpy()

    def short_of_memory() -> bool:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + (100 << 20)  # room for the answer and a few stacks of 8 MiB, not for hundreds
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return bool((bs.solve_mask(scores, "2:4t", threads=200).mask.numpy() == expected).all())

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux's /proc to limit the memory of a process")
    assert in_fork(short_of_memory)


def test_a_result_prints_in_one_line() -> None:
    result = bs.solve_mask(torch.rand(512, 512), "4:8t", return_duals=True)
    assert repr(result).startswith("MaskResult(4:8t by exact, shape (512, 512), objective ")
    assert "proven optimal" in repr(result)
    assert repr(result.duals) == "Duals(rows=(512, 64), columns=(64, 512))"
