"""Labels: what names a run beside its id, for people and backends: its name, group, tags, ... Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from asynctrack.errors import InvalidSettings

LABELS: Final = ("entity", "group", "job_type", "notes", "tags")


def as_labels(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check labels, and leave out those that are empty or None.

    Raises:
        InvalidSettings: A label is not text.
    """
    labels = {name: value for name, value in given.items() if value}
    if "tags" in labels:
        labels["tags"] = as_tags(labels["tags"])
    for name, value in labels.items():
        if name != "tags":
            as_text(name, value)
    return labels


def as_tags(given: Any) -> list[str]:
    """Make a list of tags; a single text is one tag.

    Raises:
        InvalidSettings: They are not texts.
    """
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Sequence | set | frozenset):
        raise InvalidSettings([f"tags must be a list of texts; got {given!r:.80}"])
    if wrong := [tag for tag in given if not isinstance(tag, str)]:
        raise InvalidSettings([f"each of the tags must be a text; got {wrong[0]!r:.80}"])
    return list(given)


def as_text(what: str, given: Any) -> str:
    """Check that a label is text, and return it.

    Args:
        what: The name of the label, for the message.
        given: The label.

    Raises:
        InvalidSettings: It is not text.
    """
    if not isinstance(given, str):
        raise InvalidSettings([f"{what} must be text; got {given!r:.80}"])
    return given
