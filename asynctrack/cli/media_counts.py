"""Media counts: how the images, tables and the like of a run are shown."""

from __future__ import annotations

from typing import Any, Final

from asynctrack._system.wording import counted
from asynctrack.cli.output import Output, Piece, Styled, TableColumn
from asynctrack.curves.media_counts import MediaCounts

# Kinds that are no nouns.
_NOUNS: Final = {"html": "html page"}


def media_as_json(media: MediaCounts) -> dict[str, Any]:
    """Return the media of a run for `--json`."""
    return {"counts": dict(media.by_kind), "newest": [one._asdict() for one in media.newest]}


def show_media(out: Output, media: MediaCounts) -> None:
    """Print the counts and the newest files; nothing where there are none."""
    if not media.by_kind:
        return
    out.heading("media")
    out.line(", ".join(counted(count, _NOUNS.get(kind, kind)) for kind, count in media.by_kind.most_common()), indent=2)
    rows: list[list[Piece]] = [[Styled(one.key, "dim"), one.path] for one in media.newest]
    out.table([TableColumn(cut=True), TableColumn(cut=True)], rows, indent=2, titles=False)
