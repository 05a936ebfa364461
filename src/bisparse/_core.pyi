"""Native core of bisparse: exact masks. Types of the compiled module; the C++ sources document the algorithms."""

from torch import Tensor

class MaskAnswer:
    @property
    def objective(self) -> float: ...
    @property
    def slack(self) -> float: ...
    @property
    def repaired(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def invalid(self) -> bool: ...

def instruction_sets() -> list[str]: ...
def solve_transposable(
    scores: Tensor,
    mask: Tensor,
    keep: int,
    block: int,
    absolute: bool,
    threads: int,
    warm_columns: Tensor | None,
    row_duals: Tensor | None,
    column_duals: Tensor | None,
    instruction_set: str | None,
) -> MaskAnswer: ...
def solve_row_wise(
    scores: Tensor,
    mask: Tensor,
    keep: int,
    block: int,
    absolute: bool,
    threads: int,
    instruction_set: str | None,
) -> MaskAnswer: ...
def solve_unstructured(
    scores: Tensor, mask: Tensor, kept: int, absolute: bool, threads: int
) -> MaskAnswer: ...
