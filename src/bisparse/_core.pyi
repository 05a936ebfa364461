"""Types of the native core: exact masks, packed and sparse matrices, products. The C++ sources explain them."""

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

_Matrix = tuple[int, bool, int, int, int, int, int]
_Activations = tuple[int, bool]

def product_instruction_sets() -> list[str]: ...
def packed_product(
    matrix: _Matrix,
    x: _Activations,
    batch: int,
    bias: _Activations,
    output: _Activations,
    transposed: bool,
    features_first: bool,
    threads: int,
    instruction_set: str | None,
) -> None: ...
def packed_gradient(
    matrix: _Matrix,
    grad_output: _Activations,
    x: _Activations,
    batch: int,
    free: int,
    gradient: int,
    threads: int,
    instruction_set: str | None,
) -> None: ...
def pack(
    dense: Tensor,
    mask: Tensor | None,
    keep: int,
    block: int,
    values: Tensor,
    index: Tensor,
    free: Tensor,
    threads: int,
) -> tuple[int, int]: ...
def unpack(values: Tensor, index: Tensor, keep: int, block: int, dense: Tensor, threads: int) -> None: ...
def first_bad_row(values: Tensor, index: Tensor, cols: int, keep: int, block: int, threads: int) -> int: ...

_Order = tuple[int, int, int, int, int]
_Numbers = tuple[int, int]

def sparse_instruction_sets() -> list[str]: ...
def sparse_product(
    order: _Order,
    values: _Numbers,
    x: _Numbers,
    batch: int,
    bias: _Numbers,
    output: int,
    threads: int,
    instruction_set: str | None,
) -> None: ...
def sparse_gradient(
    order: _Order,
    x: _Numbers,
    own: _Numbers,
    batch: int,
    gradient: int,
    threads: int,
    instruction_set: str | None,
) -> None: ...
def sparse_order_by_columns(order: _Order, starts: int, places: int, perm: int) -> None: ...
