"""The public names: complete, documented, and cheap to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bisparse as bs


def test_every_public_name_is_there_and_documented() -> None:
    assert set(bs._HOME) == set(bs.__all__) <= set(dir(bs))
    for name in bs.__all__:
        assert name == "Pattern" or getattr(bs, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'solve_masks'"):
        bs.solve_masks  # noqa: B018


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, bisparse, bisparse.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
