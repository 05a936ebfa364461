"""Choosing weights by name, glob, regular expression, class or callable."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import nn

__all__ = [
    "Selector",
    "Selectors",
    "as_selectors",
    "check_names",
    "is_block_weight",
    "matches",
    "protected_names",
    "select_names",
]

Selector: TypeAlias = "str | type[nn.Module] | Callable[[str, nn.Module | None], bool]"
Selectors: TypeAlias = "Selector | Iterable[Selector]"

_WRAPPERS = re.compile(r"(^|(?<=\.))(module|_orig_mod|_fsdp_wrapped_module)\.")
_HEADS = frozenset({"lm_head", "embed_out", "classifier", "fc", "head", "heads", "logits", "score", "output"})
_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared)(\.|$)")


def as_selectors(selectors: Selectors) -> tuple[Selector, ...]:
    """One selector or many, as a tuple."""
    if isinstance(selectors, (str, type)) or callable(selectors):
        return (selectors,)
    return tuple(selectors)


def matches(selector: Selector, name: str, module: nn.Module | None = None) -> bool:
    """Whether a selector chooses the weight ``name``.

    Args:
        selector: ``"re:..."``, a regular expression matched from the start of the name; a string with ``*``,
            ``?`` or
            ``[``, a glob over the whole name; any other string, a whole dotted name (of the weight, of its
            module, or of a module around it) or the name of the module's class; a module class; or a callable
            ``(name, module) -> bool``.
        name: dotted name of the weight, for example ``"layer1.0.conv1.weight"``.
        module: the module that owns it, or ``None`` for files without code.
    """
    if isinstance(selector, type):
        return isinstance(module, selector)
    if not isinstance(selector, str):
        return bool(selector(name, module))
    candidates = {name, _WRAPPERS.sub("", name)}
    owners = candidates | {candidate.rpartition(".")[0] for candidate in candidates}
    if selector.startswith("re:"):
        return any(re.match(selector[3:], owner) for owner in owners)
    if any(sign in selector for sign in "*?["):
        return any(fnmatchcase(owner, selector) for owner in owners)
    if module is not None and selector in {base.__name__ for base in type(module).__mro__}:
        return True
    return any(owner == selector or owner.startswith(selector + ".") for owner in owners)


def check_names(selectors: Sequence[Selector], names: Mapping[str, nn.Module | None], argument: str) -> None:
    """Raise where a string selector chooses nothing: a misspelt name must not be ignored in silence.

    Raises:
        ValueError: naming the selector, the argument it came from, and the nearest names.
    """
    for selector in selectors:
        if not isinstance(selector, str) or any(
            matches(selector, name, owner) for name, owner in names.items()
        ):
            continue
        near = difflib.get_close_matches(
            selector, list(dict.fromkeys(name.rpartition(".")[0] for name in names)), n=3, cutoff=0.4
        )
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"{argument}={selector!r} matches no weight{hint}")


def is_block_weight(name: str, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a weight is one of several equal ones of repeated blocks (``layers.5.linear2.weight``), hence no
    classifier.

    Args:
        name: of the weight.
        shapes: of all weights by name.
    """
    path, _, leaf = name.rpartition(".")[0].rpartition(".")
    twin = re.compile(re.sub(r"\d+", r"\\d+", re.escape(path)) + r"\." + re.escape(leaf) + r"\.\w+")
    return bool(re.search(r"\d", path)) and any(
        other != name and twin.fullmatch(other) and tuple(shape) == tuple(shapes[name])
        for other, shape in shapes.items()
    )


def protected_names(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """What ``ignore=None`` protects, judged by names and shapes alone (for files without code).

    The first convolution is the first weight of four or more dimensions that reads an image (3 channels, else
    1 or 2, else any); the classifier is the last matrix under a customary name (``lm_head``, ``classifier``,
    ``fc``, ...), else the last matrix of all unless that is one of several equal weights of repeated blocks;
    embeddings are known by name. Order is that of the mapping.

    Returns:
        Weight name to the reason for protecting it.
    """
    reasons = {
        name: "embedding"
        for name, shape in shapes.items()
        if len(shape) == 2 and _EMBEDDING.search(name.lower())
    }
    convs = [name for name, shape in shapes.items() if len(shape) >= 4]
    if convs:
        first = min(convs, key=lambda name: {3: 0, 1: 1, 2: 1}.get(shapes[name][1], 2))
        reasons.setdefault(first, "first convolution")
    matrices = [name for name, shape in shapes.items() if len(shape) == 2 and name not in reasons]
    named = [name for name in matrices if _HEADS & set(name.lower().split(".")[:2])]
    last = (named or matrices)[-1:]
    if last and not is_block_weight(last[0], shapes):
        reasons.setdefault(last[0], "last classifier or output embedding")
    return reasons


def select_names(
    shapes: Mapping[str, Sequence[int]], targets: Selectors | None = None, ignore: Selectors | None = None
) -> dict[str, str | None]:
    """Choose among weights known only by name and shape.

    Args:
        shapes: weight name to shape, in the order of the file; list only weights (two or more dimensions).
        targets: what to choose; ``None`` = every weight.
        ignore: what to leave out; ``None`` = :func:`protected_names`, a list replaces that, ``[]`` leaves out
            nothing.

    Returns:
        Every name in order: ``None`` where it is chosen, else the reason why it is left out.

    Raises:
        ValueError: a string in ``targets`` or ``ignore`` matches no weight.
    """
    wanted = None if targets is None else as_selectors(targets)
    unwanted = () if ignore is None else as_selectors(ignore)
    owners: dict[str, nn.Module | None] = dict.fromkeys(shapes)
    check_names(wanted or (), owners, "targets")
    check_names(unwanted, owners, "ignore")
    protected = protected_names(shapes) if ignore is None else {}
    chosen: dict[str, str | None] = {}
    for name in shapes:
        if wanted is not None and not any(matches(selector, name) for selector in wanted):
            chosen[name] = "not in targets"
        elif any(matches(selector, name) for selector in unwanted):
            chosen[name] = "in ignore"
        else:
            chosen[name] = f"protected: {protected[name]}" if name in protected else None
    return chosen
