"""Wording: a number with its noun, for messages to people. Runs anywhere. Standard library only."""

from __future__ import annotations


def counted(count: int, one: str, more: str | None = None) -> str:
    """Return a number with its noun, and perhaps a verb: "1 record", "2 records"; "1 record is", "2 records are".

    Args:
        count: how many.
        one: the noun for one.
        more: the noun for any other count. Default: `one` with an "s".
    """
    return f"{count} {one if count == 1 else more or one + 's'}"


def in_figures(number: float) -> str:
    """Format a number as people write it: 0.25, 60, 2,592,000."""
    return f"{number:,.10g}"
