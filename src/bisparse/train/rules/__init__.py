"""How gradients reach masked weights: one small file each, and one line in the table."""

from __future__ import annotations

from bisparse.train.rules.dst import Dst
from bisparse.train.rules.hard import Hard
from bisparse.train.rules.rule import Rule, Update
from bisparse.train.rules.s_ste import SSte
from bisparse.train.rules.sr_ste import SrSte
from bisparse.train.rules.ste import Ste

__all__ = ["RULES", "Dst", "Hard", "Rule", "SSte", "SrSte", "Ste", "Update", "resolve_rule"]

RULES: dict[str, Rule] = {
    "hard": Hard(),
    "ste": Ste(),
    "sr-ste": SrSte(),
    "sr-ste-decoupled": SrSte(mode="decoupled"),
    "s-ste": SSte(),
    "dst": Dst(),
}


def resolve_rule(rule: str | Rule) -> Rule:
    """A rule by name, or the rule itself.

    Raises:
        TypeError: neither text nor a rule.
        ValueError: an unknown name.
    """
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, str):
        raise TypeError(
            f"a rule is text or a Rule, got {type(rule).__name__}; choose one of {', '.join(RULES)}"
        )
    if rule.lower().replace("_", "-") not in RULES:
        raise ValueError(f"unknown rule {rule!r}; choose one of {', '.join(RULES)}, or pass a Rule")
    return RULES[rule.lower().replace("_", "-")]
