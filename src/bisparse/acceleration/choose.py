"""Which layers become sparse: times at the uses that occur, summed over the calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from bisparse.acceleration.candidates import Candidate, Mode
from bisparse.acceleration.masked import MaskedLayer
from bisparse.acceleration.observe import Use
from bisparse.acceleration.report import LayerTiming
from bisparse.acceleration.timing import Cold, LayerTimes, time_layer
from bisparse.pattern import NM

__all__ = ["Choice", "choose"]

_MOST_USES = 4


@dataclass(slots=True)
class Choice:
    """What is decided about one layer.

    Attributes:
        name: of the module.
        layer: the module.
        pattern: that its weight obeys.
        uses: how it is called.
        mask: what it keeps; ``None`` = the non-zeros.
        times: tokens to times, for the uses that were timed.
        best: the fastest candidate that computes the same.
        chosen: the candidate that takes its place; ``None``: it stays.
        reason: why.
    """

    name: str
    layer: nn.Module
    pattern: NM
    uses: Sequence[Use]
    mask: Tensor | None = None
    times: Mapping[int, LayerTimes] = field(default_factory=dict)
    best: str = ""
    chosen: Candidate | None = None
    reason: str = ""

    def build(self) -> nn.Module:
        """The sparse layer."""
        assert self.chosen is not None
        return self.chosen.build(self.layer, self.pattern, self.mask)

    def rows(self, put_back: str) -> list[LayerTiming]:
        """One row for every number of tokens that was timed; one at least.

        Args:
            put_back: why the layer is dense again although it was chosen; ``""`` where it is not.
        """
        chosen = None if put_back else self.chosen
        reason = f"put back: {put_back}" if put_back and self.chosen else self.reason
        shape = tuple(getattr(self.layer, "weight").shape)  # noqa: B009  (a module's attributes are not typed)
        rows = []
        for use in self.uses[:_MOST_USES]:
            times = self.times.get(use.tokens)
            dense = None if times is None else 1e6 * times.seconds["dense"]
            sparse = None if times is None or not self.best else 1e6 * times.seconds[self.best]
            rows.append(
                LayerTiming(
                    self.name,
                    shape,
                    str(self.pattern),
                    use.tokens,
                    use.calls,
                    dense,
                    sparse,
                    "dense" if chosen is None else chosen.name,
                    reason,
                )
            )
        nothing = LayerTiming(self.name, shape, str(self.pattern), 0, 0, None, None, "dense", self.reason)
        return rows or [nothing]


def choose(
    masked: Sequence[MaskedLayer],
    uses: Mapping[str, Sequence[Use]],
    candidates: Sequence[Candidate],
    *,
    mode: Mode,
    min_gain: float,
    cold: Cold,
) -> list[Choice]:
    """Decide about every masked layer; layers of one shape, pattern and use are timed once.

    Args:
        masked: the layers.
        uses: layer name to its uses, the most frequent first; the first four are timed.
        candidates: what may take their place.
        mode: what is timed.
        min_gain: dense time over sparse time, summed over the calls, that is at least wanted.
        cold: drives weights out of the caches.

    Returns:
        A choice for every layer, in order.
    """
    decided: dict[tuple[object, ...], Choice] = {}
    choices = []
    for each in masked:
        weight, pattern = each.weight, each.pattern
        choice = Choice(weight.module_name, weight.module, pattern, uses[weight.module_name], each.mask)
        has_bias = getattr(weight.module, "bias", None) is not None
        kind = (
            type(weight.module),
            tuple(weight.parameter.shape),
            weight.parameter.dtype,
            has_bias,
            str(pattern),
        )
        key = (*kind, *((use.tokens, use.calls, use.x.dtype) for use in choice.uses))
        if key in decided:
            like = decided[key]
            choice.times, choice.best, choice.chosen, choice.reason = (
                like.times,
                like.best,
                like.chosen,
                like.reason,
            )
        else:
            _decide(choice, candidates, mode, min_gain, cold)
            decided[key] = choice
        choices.append(choice)
    return choices


def _decide(choice: Choice, candidates: Sequence[Candidate], mode: Mode, min_gain: float, cold: Cold) -> None:
    """Time one layer and fill in what follows."""
    if not choice.uses:
        choice.reason = "never called as a module"
        return
    asked = [candidate for candidate in candidates if candidate.concerns(choice.layer, mode)]
    misfits = {c.name: c.misfit(choice.layer, choice.pattern, mode, choice.mask) for c in asked}
    fitting = {c.name: c for c in asked if not misfits[c.name]}
    built = {name: c.build(choice.layer, choice.pattern, choice.mask) for name, c in fitting.items()}
    timed = choice.uses[:_MOST_USES]
    choice.times = {use.tokens: time_layer(choice.layer, built, use.x, mode=mode, cold=cold) for use in timed}
    if not fitting:
        choice.reason = "; ".join(misfits.values()) or "no candidate"
        return
    dtype = timed[0].x.dtype
    right = [name for name in fitting if all(times.agrees(name, dtype) for times in choice.times.values())]
    if not right:
        worst = max(max(times.differences.values()) for times in choice.times.values())
        choice.reason = f"its output differs from the dense one by {worst:.1e}"
        return
    sums = {name: _total(choice.times, timed, name) for name in ("dense", *right)}
    choice.best = min(right, key=lambda name: sums[name])
    gain = sums["dense"] / sums[choice.best]
    if gain >= min_gain:
        choice.chosen = fitting[choice.best]
    verdict = f"{gain:.2f}x" if gain >= min_gain else f"{gain:.2f}x, less than {min_gain:g}x"
    choice.reason = verdict + (" over all calls" if len(timed) > 1 else "")


def _total(times: Mapping[int, LayerTimes], uses: Sequence[Use], name: str) -> float:
    """Seconds of all calls."""
    return sum(use.calls * times[use.tokens].seconds[name] for use in uses)
