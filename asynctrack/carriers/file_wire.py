"""File wire: how files that were logged by their paths travel by HTTP, before the messages whose records name them. Pure functions, for both sides.

| Request | Meaning | Answer |
| --- | --- | --- |
| `POST /v1/PROJECT/RUN/HOST/media?journal=HEX` | put a medium where its records look for it; the body is a `PlacedMedium` as JSON | 200 and a `Placing` as JSON: what must come first |
| `PUT /v1/PROJECT/RUN/HOST/files/SHA256?journal=HEX&offset=N&size=BYTES` | the next bytes of a file, the body | 204; 412 where other bytes come next: `seen` says which |

A medium is there for good once nothing is lacking. All of it can be asked again: what is there already stays as it is.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

import msgspec

from asynctrack.carriers import wire
from asynctrack.carriers.wire import PartName

MEDIA: Final = "media"
FILES: Final = "files"
# Names of what stands behind the `?`.
OFFSET: Final = "offset"
SIZE: Final = "size"

# Of a file, sent at once.
CHUNK_BYTES: Final = 512 * 1024
# Of the text that says why there is no file.
MOST_WHY: Final = 2000

_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
# As `records.media_types` names them.
_PATH: Final = re.compile(
    r"media/(images|tables|html|texts|artifacts|others)/[0-9a-f]{20}(\.[A-Za-z0-9]{1,8})?", re.ASCII
)
_MOST_NAME: Final = 4000
_MOST_PART: Final = 255


class SentFile(msgspec.Struct, frozen=True):
    """Says what a file holds.

    Attributes:
        sha256: of its content, as hexadecimal digits.
        size: in bytes.
    """

    sha256: str
    size: int


class PlacedMedium(msgspec.Struct, frozen=True, omit_defaults=True):
    """Says of which files a medium consists, or why there are none.

    Attributes:
        path: of the medium in the run's directory.
        files: by their names in an artifact; any other medium is one file, whose name is empty.
        missing: why there are no files, and where they are.
    """

    path: str
    files: dict[str, SentFile] = {}
    missing: str | None = None


class Placing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Says what has become of a medium.

    Attributes:
        lacks: what must be sent first: by the SHA-256, how many bytes of it are here.
        differs: whether another host's file of the same path, size and time of change is there, which has another content.
    """

    lacks: dict[str, int] = {}
    differs: bool = False


class FileTarget(NamedTuple):
    """Holds what a path names that is about files.

    Attributes:
        part: the host's part.
        kind: whether it is a medium or a file.
        sha256: of the file.
    """

    part: PartName
    kind: Literal["media", "files"]
    sha256: str = ""


def target_in(path: str) -> FileTarget | None:
    """Return what a path names that is about files; None where it names nothing of that kind.

    Args:
        path: as it came, still percent-encoded, without what stands behind the `?`.
    """
    above, _, last = path.rpartition("/")
    if last == MEDIA:
        part = wire.name_in(above)
        return None if part is None else FileTarget(part, "media")
    above, _, kind = above.rpartition("/")
    part = wire.name_in(above) if kind == FILES and _SHA256.fullmatch(last) else None
    return None if part is None else FileTarget(part, "files", last)


def number_in(text: str) -> int | None:
    """Return the number that a query has; None where that is none."""
    return int(text) if _NUMBER.fullmatch(text) else None


def problem_of(medium: PlacedMedium) -> str | None:
    """Return what is wrong with a medium that somebody has sent; None where nothing is."""
    found = _PATH.fullmatch(medium.path)
    if found is None:
        return f"expected a path such as media/images/0123456789abcdef0123.png, got {medium.path!r:.100}"
    if (medium.missing is None) == (not medium.files):
        return "expected files, or why there are none"
    is_artifact = found[1] == "artifacts"
    for name, file in medium.files.items():
        if (not _is_inside(name)) if is_artifact else name:
            return f"expected names below the artifact, and none for any other medium; got {name!r:.100}"
        if not _SHA256.fullmatch(file.sha256) or not 0 <= file.size < 1 << 60:
            return f"expected a SHA-256 and a size, got {file.sha256!r:.100} and {file.size}"
    return None


def _is_inside(name: str) -> bool:
    """Return whether a name leads to a file below a folder."""
    parts = name.split("/")
    fits = all(0 < len(part.encode("utf-8", "replace")) <= _MOST_PART for part in parts)
    return fits and len(name) <= _MOST_NAME and "\0" not in name and not {".", ".."}.intersection(parts)
