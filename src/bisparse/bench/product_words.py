"""What times of products mean, in plain words: up to how many tokens a pattern pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bisparse.bench.ledger import Row

__all__ = ["PAYS", "in_plain_words", "pays_up_to"]

PAYS = 1.05


def pays_up_to(rows: Sequence[Row]) -> int:
    """The largest number of tokens up to which every measured one is faster by 5%; 0 where none is."""
    limit = 0
    for row in sorted(rows, key=lambda row: _number(row, "tokens")):
        if _number(row, "speedup") < PAYS:
            break
        limit = int(_number(row, "tokens"))
    return limit


def _number(row: Row, column: str) -> float:
    value = row[column]
    assert isinstance(value, (int, float))
    return value


def in_plain_words(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for every pattern and type: ``"On this machine 4:8 float32 pays for up to 16 tokens ..."``."""
    groups: dict[tuple[object, object], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["pattern"], row["dtype"]), []).append(row)
    for (pattern, dtype), members in groups.items():
        yield f"On this machine {pattern} {dtype} {_verdict(members)}."


def _verdict(rows: Sequence[Row]) -> str:
    shapes: dict[str, list[Row]] = {}
    for row in rows:
        shapes.setdefault(f"{row['rows']}x{row['columns']}", []).append(row)
    limits = {shape: pays_up_to(members) for shape, members in shapes.items()}
    most = max(int(_number(row, "tokens")) for row in rows)
    best = max(_number(row, "speedup") for row in rows)
    if not any(limits.values()):
        return f"pays nowhere among what was measured: leave the layers dense (best {best:.2f}x)"
    if len(set(limits.values())) == 1:
        return f"pays for {_tokens(next(iter(limits.values())), most)} (up to {best:.2f}x)"
    parts = [f"{_tokens(limit, most)} at {shape}" for shape, limit in limits.items() if limit]
    never = [shape for shape, limit in limits.items() if not limit]
    return (
        f"pays for {', '.join(parts)}"
        + (f", and not at {', '.join(never)}" if never else "")
        + f" (up to {best:.2f}x)"
    )


def _tokens(limit: int, most: int) -> str:
    if limit == 1:
        return "single tokens" if most > 1 else "single tokens (no more were measured)"
    return f"batch <= {limit}" + (" (no more were measured)" if limit == most else "")
