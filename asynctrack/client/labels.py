"""Labels: what names a run beside its id, for people and backends: its name, group, tags, ... Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from asynctrack.errors import InvalidSettings

LABELS: Final = ("entity", "group", "job_type", "notes", "tags")


def as_labels(given: Mapping[str, Any]) -> dict[str, Any]:
    """The labels that were given, those that say nothing left out.

    Raises:
        InvalidSettings: something is no text.
    """
    labels = {name: value for name, value in given.items() if value}
    if "tags" in labels:
        labels["tags"] = as_tags(labels["tags"])
    for name, value in labels.items():
        if name != "tags":
            as_text(name, value)
    return labels


def as_tags(given: Any) -> list[str]:
    """Tags as a list; one text is one tag.

    Raises:
        InvalidSettings: they are no texts.
    """
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Sequence | set | frozenset):
        raise InvalidSettings([f"tags must be a list of texts; got {given!r:.80}"])
    if wrong := [tag for tag in given if not isinstance(tag, str)]:
        raise InvalidSettings([f"each of the tags must be a text; got {wrong[0]!r:.80}"])
    return list(given)


def as_text(what: str, given: Any) -> str:
    """A label.

    Raises:
        InvalidSettings: it is no text.
    """
    if not isinstance(given, str):
        raise InvalidSettings([f"{what} must be text; got {given!r:.80}"])
    return given
