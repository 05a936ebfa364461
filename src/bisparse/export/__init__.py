"""Out of the library: dense models for every other runtime, and PyTorch's own sparse tensors."""

from __future__ import annotations

from bisparse.export.dense import dense_state_dict, to_dense
from bisparse.export.semi_structured import to_semi_structured

__all__ = ["dense_state_dict", "to_dense", "to_semi_structured"]
