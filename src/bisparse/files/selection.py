"""Which tensors of a file are pruned, how each is read, and why the others stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bisparse.files.checkpoint import Checkpoint
from bisparse.files.errors import CheckpointError
from bisparse.files.guess import FLOAT_TYPES, Guess, guess_all
from bisparse.files.layout_option import LayoutChoice, LayoutOption, find_layout, parse_layouts
from bisparse.pattern import NM, Pattern, TransposableNM, Unstructured
from bisparse.weights import Layout, Selectors, matches, protected_names
from bisparse.weights.select import as_selectors, check_names

__all__ = ["Choice", "choose", "read_as"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is decided about one tensor.

    Attributes:
        name: its name.
        shape: its shape.
        dtype: the format's type name.
        taken_for: what it is, in a word or two.
        why: the evidence.
        layout: how it is read as matrices; ``None`` where it is no weight.
        undecided: what else it might be, where nobody can tell; ``""`` otherwise.
        left_out: why it stays as it is; ``""`` where it is pruned.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    taken_for: str
    why: str
    layout: Layout | None
    undecided: str = ""
    left_out: str = ""

    @property
    def reading(self) -> str:
        """What it may be, in words."""
        return f"{self.taken_for} or {self.undecided}" if self.undecided else self.taken_for

    @property
    def chosen(self) -> bool:
        """Whether it is pruned."""
        return not self.left_out


def read_as(checkpoint: Checkpoint, layout: LayoutOption | None = None) -> list[Choice]:
    """How every tensor of a checkpoint is read, in the order of the file; nothing is left out yet.

    Raises:
        ValueError: a given layout that cannot be read, or does not fit a tensor that it names.
    """
    given = parse_layouts(layout)
    entries = [entry for _, entry in checkpoint.entries()]
    shapes = {entry.name: entry.shape for entry in entries}
    dtypes = {entry.name: entry.dtype for entry in entries}
    check_names([c.selector for c in given if c.selector is not None], dict.fromkeys(shapes), "layout")
    guesses = guess_all(shapes, dtypes, checkpoint.config)
    return [
        Choice(e.name, e.shape, e.dtype, *_settled(guesses[e.name], e.name, e.shape, e.dtype, given))
        for e in entries
    ]


def _settled(
    guess: Guess, name: str, shape: tuple[int, ...], dtype: str, given: Sequence[LayoutChoice]
) -> tuple[str, str, Layout | None, str]:
    layout = find_layout(given, name, len(shape), undecided=bool(guess.undecided))
    if layout is None or dtype not in FLOAT_TYPES:
        return guess.taken_for, guess.why, guess.layout, guess.undecided
    return layout.kind.replace("_", " "), "given by layout", layout, ""


def choose(
    checkpoint: Checkpoint,
    pattern: Pattern,
    *,
    targets: Selectors | None = None,
    ignore: Selectors | None = None,
    layout: LayoutOption | None = None,
) -> list[Choice]:
    """Decide about every tensor of a checkpoint.

    Args:
        checkpoint: the open checkpoint.
        pattern: what masks are allowed; it settles which ambiguities matter.
        targets: names, globs or ``re:`` expressions of what to prune; ``None`` = every weight.
        ignore: what to leave; ``None`` protects the first convolution, the last classifier or output
            embedding, and embeddings; a list replaces that; ``[]`` protects nothing.
        layout: layouts for tensors that nobody can tell, ``"h.*.c_attn=transposed"``.

    Raises:
        CheckpointError: a chosen tensor can be read in several ways that matter for this pattern, or nothing
            at all is chosen.
        ValueError: names that match nothing; a layout that does not fit.
    """
    choices = read_as(checkpoint, layout)
    aliases = {first: (first, *others) for first, *others in checkpoint.ties}
    names = dict.fromkeys(name for choice in choices for name in aliases.get(choice.name, (choice.name,)))
    wanted = None if targets is None else as_selectors(targets)
    unwanted = () if ignore is None else as_selectors(ignore)
    check_names(wanted or (), names, "targets")
    check_names(unwanted, names, "ignore")
    protected = _protected(choices, checkpoint) if ignore is None else {}
    decided = []
    for choice in choices:
        own = aliases.get(choice.name, (choice.name,))
        named = wanted is not None and any(matches(selector, name) for selector in wanted for name in own)
        choice = _as_target(choice) if named else choice
        ignored = any(matches(selector, name) for selector in unwanted for name in own)
        reason = _reason(choice, named or wanted is None, ignored, protected)
        decided.append(replace(choice, left_out=reason))
    decided = _with_ties(decided, checkpoint)
    _check(decided, pattern, checkpoint)
    if not isinstance(pattern, TransposableNM):
        return decided
    free = f"; {pattern} needs no orientation"
    return [replace(c, why=c.why + free) if c.chosen and c.undecided else c for c in decided]


def _as_target(choice: Choice) -> Choice:
    """A tensor that the user names is a weight, whatever its name sounds like."""
    if (
        choice.layout is not None
        or choice.undecided
        or choice.dtype not in FLOAT_TYPES
        or len(choice.shape) != 2
    ):
        return choice
    layout = Layout(oriented=False)
    return replace(choice, taken_for="linear", why="2-D, in targets", layout=layout, undecided="transposed")


def _reason(choice: Choice, wanted: bool, ignored: bool, protected: Mapping[str, str]) -> str:
    if choice.layout is None and not choice.undecided:
        return f"{choice.taken_for} ({choice.why})"
    if not wanted:
        return "not in targets"
    if ignored:
        return "in ignore"
    return f"protected: {protected[choice.name]}" if choice.name in protected else ""


def _protected(choices: Iterable[Choice], checkpoint: Checkpoint) -> dict[str, str]:
    """What ``ignore=None`` protects; the config's vocabulary size finds embeddings of any name."""
    weights = [c for c in choices if c.layout is not None or c.undecided]
    if checkpoint.kind != "pickle":
        weights.sort(key=lambda choice: _natural(choice.name))
    aliases = {first: (first, *others) for first, *others in checkpoint.ties}
    shapes = {name: c.shape for c in weights for name in aliases.get(c.name, (c.name,))}
    reasons = protected_names(shapes)
    vocabulary = checkpoint.config.get("vocab_size")
    found = {
        c.name: "embedding or output embedding: vocab_size rows"
        for c in weights
        if len(c.shape) == 2 and c.shape[0] == vocabulary
    }
    for first, others in aliases.items():
        held = next((reasons[name] for name in others if name in reasons), None)
        reasons.update({first: held} if held is not None else {})
    return reasons | found


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``layers.10`` after ``layers.9``, as the model does."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _with_ties(choices: list[Choice], checkpoint: Checkpoint) -> list[Choice]:
    """A tied tensor stays as it is as soon as one of its names does; also ties that only the config knows."""
    groups = [set(names) for names in checkpoint.ties]
    if checkpoint.config.get("tie_word_embeddings") is True:
        groups.append(
            {c.name for c in choices if re.search(r"(^|\.)(lm_head|embed_tokens|wte)\.weight$", c.name)}
        )
    reasons = {choice.name: choice.left_out for choice in choices}
    tied = {}
    for group in groups:
        held = next((name for name in sorted(group) if reasons.get(name)), None)
        tied.update({name: held for name in group if held is not None and not reasons.get(name)})
    return [
        replace(c, left_out=f"tied to {tied[c.name]}, which stays") if c.name in tied else c for c in choices
    ]


def _check(choices: Sequence[Choice], pattern: Pattern, checkpoint: Checkpoint) -> None:
    """Raise where guessing would be wrong, or nothing is to be done."""
    chosen = [choice for choice in choices if choice.chosen]
    if not chosen:
        raise CheckpointError(f"nothing to prune in {checkpoint.path}: {_why_nothing(choices)}")
    open_kind = [c for c in chosen if c.layout is None and not isinstance(pattern, Unstructured)]
    open_axes = [
        c for c in chosen if c.layout is not None and not c.layout.oriented and isinstance(pattern, NM)
    ]
    if not open_kind and not open_axes:
        return
    first = (open_kind or open_axes)[0]
    count = len(open_kind) + len(open_axes)
    others = f" (and {count - 1} more)" if count > 1 else ""
    way_out = f"; {pattern}t needs no orientation" if isinstance(pattern, NM) and not open_kind else ""
    raise CheckpointError(
        f"{first.name} {first.shape}{others} can be read in several ways ({first.why}): give "
        f"--layout '{_glob(first.name)}={first.taken_for}' (or {first.undecided}), "
        f"or leave it with --ignore{way_out}"
    )


def _why_nothing(choices: Sequence[Choice]) -> str:
    """Why every tensor is left, and what to do about it; matrices come first."""
    left = sorted(choices, key=lambda choice: len(choice.shape) < 2)
    shown = "; ".join(f"{c.name}: {c.left_out}" for c in left[:3])
    others = f"; and {len(left) - 3} more" if len(left) > 3 else ""
    protected = any(choice.left_out.startswith("protected") for choice in choices)
    return f"{shown or 'no tensors'}{others}" + (" (--ignore '' protects nothing)" if protected else "")


def _glob(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
