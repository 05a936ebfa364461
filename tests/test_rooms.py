"""The house stands as ARCHITECTURE.md says: every room is listed there, and imports only from rooms above it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "bisparse"
ENTRANCES = {"__init__", "__main__"}


def listed_rooms() -> list[str]:
    """Rooms in the order of the page; a line may name several."""
    block = (
        (ROOT / "ARCHITECTURE.md")
        .read_text(encoding="utf-8")
        .split("src/bisparse/\n")[1]
        .split("\nbenchmarks/")[0]
    )
    names = re.findall(r"^ {2}(\S.*?)(?: {2,}|$)", block, re.MULTILINE)
    return [name.strip().removesuffix("/").removesuffix(".py") for line in names for name in line.split(",")]


def imports() -> dict[tuple[str, str], list[str]]:
    """(importing room, imported room) and the files that do so."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).parts
        room = parts[0] if len(parts) > 1 else path.stem
        for other in re.findall(r"(?:from|import) bisparse\.([a-z]\w*)", path.read_text(encoding="utf-8")):
            if other != room and room not in ENTRANCES:
                found.setdefault((room, other), []).append(path.name)
    return found


def test_every_room_is_listed():
    there = {p.stem for p in SOURCE.iterdir() if (p.suffix == ".py" or (p / "__init__.py").exists())}
    assert there - ENTRANCES == set(listed_rooms())


def test_rooms_import_only_from_rooms_above():
    order = listed_rooms()
    upward = {pair: files for pair, files in imports().items() if order.index(pair[1]) > order.index(pair[0])}
    assert upward == {}
