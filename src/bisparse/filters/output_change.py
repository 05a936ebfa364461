"""How far new weights move what a network computes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from bisparse.compress.calibration import Call, evaluation_state
from bisparse.compress.outputs import real_outputs
from bisparse.compress.overlay import Overlay
from bisparse.filters.samples import first_samples

__all__ = ["OutputChange"]


class OutputChange:
    """Measures ``sum |f'(x) - f(x)|^2 / sum |f(x)|^2`` over some samples x, f' being the network with other weights.

    Of a model that returns several tensors, the one that stands for them counts (see
    :func:`bisparse.compress.outputs.output_tensor`); padding tokens do not.

    Args:
        model: f; it wears the other weights only while it is measured.
        calls: calibration data.
        samples: how many of them at most.

    Raises:
        TypeError: the model returns no tensor.
    """

    def __init__(self, model: nn.Module, calls: Sequence[Call], samples: int) -> None:
        self._model, self._calls = model, first_samples(calls, samples)
        self._goals = self._outputs()
        self._energy = sum(float(goal.square().sum()) for goal in self._goals)

    def __call__(self, weights: Mapping[str, Tensor]) -> float:
        """The change that these weights make, by name of the parameter; one forward pass of the samples.

        Infinite where outputs are no longer finite, 0 where the network only ever returned zeros.
        """
        if self._energy <= 0.0:
            return 0.0
        worn = Overlay()
        for name, value in weights.items():
            worn.put(self._model.get_parameter(name), value)
        with worn.worn():
            outputs = self._outputs()
        pairs = zip(outputs, self._goals, strict=True)
        change = sum(float((output - goal).square().sum()) for output, goal in pairs) / self._energy
        return math.inf if math.isnan(change) else change

    def _outputs(self) -> list[Tensor]:
        with evaluation_state(self._model):
            return [real_outputs(call, call.run(self._model)) for call in self._calls]
