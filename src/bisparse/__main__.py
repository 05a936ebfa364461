"""``python -m bisparse``: the same program as ``bisparse``, for ``torchrun -m bisparse``."""

from __future__ import annotations

from bisparse.cli.app import main

if __name__ == "__main__":
    main()
