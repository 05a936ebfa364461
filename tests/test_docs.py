"""The documents are true: their Python runs, prints what they say, and their links and commands exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import typer

from bisparse.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```(?:bash|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def test_the_pages_are_there() -> None:
    assert {"README.md", "docs/index.md", "docs/masks.md", "docs/benchmarks.md"} <= set(names(PAGES))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_python_blocks_run_and_print_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code, expected in BLOCK.findall(page.read_text(encoding="utf-8")):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), namespace)
        assert not expected or printed.getvalue() == expected, f"after\n{code}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def shell_commands(page: Path) -> list[list[str]]:
    """Words of every ``bisparse`` and ``make`` command in the page's shell blocks, comments removed."""
    lines = "\n".join(SHELL.findall(page.read_text(encoding="utf-8"))).splitlines()
    words = [line.split("#")[0].split() for line in lines]
    return [line for line in words if line and line[0] in ("bisparse", "make")]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_exist_with_their_options(page: Path) -> None:
    for words in shell_commands(page):
        if words[0] == "make":
            assert set(words[1:]) <= make_targets(), words
        else:
            check_bisparse_command(words)


def check_bisparse_command(words: list[str]) -> None:
    command, arguments = typer.main.get_command(app), words[1:]
    while (commands := getattr(command, "commands", None)) and not arguments[0].startswith("-"):
        assert arguments[0] in commands, words
        command = commands[arguments.pop(0)]
    options = {flag for parameter in command.params for flag in parameter.opts} | {"--help", "-h"}
    assert {word for word in arguments if re.match(r"--?[a-z]", word)} <= options, words
