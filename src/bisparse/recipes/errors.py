"""What is wrong with a recipe, in words that name the key and the choices."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["RecipeError", "explain"]

_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message has one line for every mistake."""


def explain(error: ValidationError, schema: type[BaseModel], origin: str) -> RecipeError:
    """Turn what pydantic found into one line for each key.

    Args:
        error: what it found.
        schema: of the whole recipe.
        origin: the file or name, for the first line.
    """
    lines = dict.fromkeys(_line(problem, schema) for problem in error.errors())
    return RecipeError("\n  ".join([f"{origin}:", *lines]))


def _line(problem: Any, schema: type[BaseModel]) -> str:
    kind, place = problem["type"], tuple(problem["loc"])
    section, path = _walk(schema, place if kind != "extra_forbidden" else place[:-1])
    if kind == "extra_forbidden":
        return _unknown_key(section, path, str(place[-1]))
    name = ".".join(path) or "recipe"
    context = problem.get("ctx", {})
    if kind == "missing":
        return f"{name}: missing"
    if kind == "literal_error":
        return f"{name}: {problem['input']!r} is not one of {context['expected']}"
    if kind == "union_tag_invalid":
        return f"{name}.name: {context['tag']!r} is not one of {context['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{name}.name: missing; choose what {name} it is"
    if kind in _EXPECTED:
        found = problem["input"]
        return f"{name}: expected {_EXPECTED[kind]}, got {found!r} ({type(found).__name__})"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})"


def _unknown_key(section: type[BaseModel] | None, path: Sequence[str], key: str) -> str:
    known = sorted(section.model_fields) if section is not None else []
    close = difflib.get_close_matches(key, known, 1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return f"{'.'.join((*path, key))}: unknown key.{guess} Known keys: {', '.join(known)}"


def _walk(schema: type[BaseModel], place: Sequence[int | str]) -> tuple[type[BaseModel] | None, list[str]]:
    """The section at a place, and the place as a user writes it (without the tags of unions)."""
    candidates: list[type[BaseModel]] = [schema]
    path: list[str] = []
    for part in place:
        tagged = [c for c in candidates if part in _tags(c)]
        if tagged and not any(part in c.model_fields for c in candidates):
            candidates = tagged
            continue
        path.append(str(part))
        fields = [c.model_fields[str(part)] for c in candidates if str(part) in c.model_fields]
        candidates = [found for field in fields for found in _sections(field.annotation)]
    return (candidates[0] if candidates else None), path


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field is not None else ()


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every section inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
