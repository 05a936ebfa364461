"""YAML as people expect it: ``2:4`` is a text (not 124, base 60), ``1e-3`` a number, ``no`` a text."""

from __future__ import annotations

import re
from typing import Any

from bisparse.recipes.errors import RecipeError

try:
    import yaml
except ImportError as error:
    raise ImportError('recipes need pydantic and PyYAML: pip install "bisparse[train]"') from error

__all__ = ["parse_yaml", "write_yaml"]


class _Loader(yaml.SafeLoader):
    """Core schema of YAML 1.2; a key given twice is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own form

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key) for key, _ in node.value]
        twice = {str(name) for name in names if names.count(name) > 1}
        if twice:
            raise RecipeError(f"key {', '.join(sorted(twice))} is given twice{node.start_mark}")
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|false|False", "tTfF"),
    ("null", r"~|null|", "~n"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML document.

    Raises:
        RecipeError: no valid YAML; names the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin}: {error}") from error


def write_yaml(value: Any) -> str:
    """A value as YAML, keys in their order."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
