"""Wording: a number with its noun, and the page where more stands, for messages to people. Runs anywhere. Standard library only."""

from __future__ import annotations


def counted(count: int, one: str, more: str | None = None) -> str:
    """Return a number with its noun, and perhaps a verb: "1 record", "2 records"; "1 record is", "2 records are".

    Args:
        count: how many.
        one: the noun for one.
        more: the noun for any other count. Default: `one` with an "s".
    """
    return f"{count} {one if count == 1 else more or one + 's'}"


def page(name: str) -> str:
    """Name a page of the documents as messages do: by its path in the repository.

    Args:
        name: below `docs/`, perhaps with a heading: "how_to/media.md#how-large-a-value-may-be".
    """
    return f"docs/{name}"


def see(name: str) -> str:
    """Return the end of a message that names the page where more stands; nothing for no page."""
    return name and f"; see {page(name)}"


def in_figures(number: float) -> str:
    """Format a number as people write it: 0.25, 60, 2,592,000."""
    return f"{number:,.10g}"
