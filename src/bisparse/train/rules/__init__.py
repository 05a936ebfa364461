"""How gradients reach masked weights: one small file each, and one line in the table."""

from __future__ import annotations

from bisparse.train.rules.dst import Dst
from bisparse.train.rules.hard import Hard
from bisparse.train.rules.rule import Rule, Update
from bisparse.train.rules.s_ste import SSte
from bisparse.train.rules.sr_ste import SrSte
from bisparse.train.rules.ste import Ste

__all__ = ["RULES", "Dst", "Hard", "Rule", "SSte", "SrSte", "Ste", "Update"]

RULES: dict[str, Rule] = {
    "hard": Hard(),
    "ste": Ste(),
    "sr-ste": SrSte(),
    "sr-ste-decoupled": SrSte(mode="decoupled"),
    "s-ste": SSte(),
    "dst": Dst(),
}
