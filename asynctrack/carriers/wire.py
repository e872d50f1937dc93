"""Wire: how a host and a collector talk by HTTP: paths, headers, and what errors are called. Pure functions, for both sides.

| Request | Meaning | Answer |
| --- | --- | --- |
| `GET /v1/PROJECT/RUN/HOST?journal=HEX` | up to where is this journal merged, and safe? It is a sign of life, too | 200 and a `Place` as JSON |
| `POST /v1/PROJECT/RUN/HOST?after=PLACE&upto=PLACE` | a message, its body; deflated where its `Content-Encoding` says so | 204 once it is synced |

| `POST /v1/PROJECT/RUN/HOST/media`, `PUT /v1/PROJECT/RUN/HOST/files/SHA256` | files that were logged by their paths: see `file_wire` | |

Names are percent-encoded, those of directories. Each request has the host's clock in `X-Asynctrack-Time`, and where there is a token, `Authorization: Bearer TOKEN`.
A message may have in `X-Asynctrack-Behind` how many bytes are still to come behind it.
An error is a `Refusal` as JSON.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from asynctrack.carriers.message import Garbage, Place
from asynctrack.carriers.parts import part_name, split_name
from asynctrack.settings import project_directory

VERSION: Final = "v1"
# When a request was sent by the host's clock, in nanoseconds since the epoch.
TIME_HEADER: Final = "X-Asynctrack-Time"
# How many bytes the host's journal has behind what a message brings.
BEHIND_HEADER: Final = "X-Asynctrack-Behind"
TOKEN_SCHEME: Final = "Bearer"
DEFLATE: Final = "deflate"
# Names of what stands behind the `?`.
JOURNAL: Final = "journal"
AFTER: Final = "after"
UPTO: Final = "upto"

Code = Literal[
    "garbage", "no_token", "wrong_token", "not_your_project", "no_such_path", "refused", "incomplete", "too_large", "too_many_tries", "not_now", "disk_full",
]  # fmt: skip
Limit = Literal["message", "inflated", "run", "hosts", "file"]
STATUS: Final[dict[Code, int]] = {
    "garbage": 400,
    "no_token": 401,
    "wrong_token": 401,
    "not_your_project": 403,
    "no_such_path": 404,
    "refused": 409,
    "incomplete": 412,
    "too_large": 413,
    "too_many_tries": 429,
    "not_now": 503,
    "disk_full": 507,
}

# A project whose name is no directory's: see `settings.project_directory`.
_HASHED: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-. ]{0,116}~[0-9a-f]{10}")
_PLACE: Final = re.compile(r"[0-9]{1,19}:[0-9]{1,19}:[0-9]{1,19}", re.ASCII)
_JOURNAL: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
# Of a name; each of its characters may take three. Longer than any.
_LONGEST_PATH: Final = 1200
# The least gain for which a message is deflated, in bytes: below that both sides' work costs more. Arbitrary.
_LEAST_GAIN: Final = 256


class PartName(NamedTuple):
    """Names a host's part of a run.

    Attributes:
        project: the name of the project's directory.
        run: the id of the run.
        host: the name of the host.
    """

    project: str
    run: str
    host: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Says why a request was not done.

    Attributes:
        error: a sentence for people.
        code: the same for programs.
        ring: whose bytes are missing, where that is why.
        seen: up to where the ring is merged.
        limit: what is too large. A message can be cut smaller; what a run or its hosts may have cannot. Without a file its record goes on.
    """

    error: str
    code: Code
    ring: int | None = None
    seen: int = 0
    limit: Limit | None = None


def path_of(name: PartName) -> str:
    """Return the path of a host's part, percent-encoded."""
    return "/".join(["", VERSION, *(quote(part, safe="") for part in name)])


def name_in(path: str) -> PartName | None:
    """Return which part a path names; None where it names none.

    Args:
        path: as it came, still percent-encoded, without what stands behind the `?`.
    """
    parts = path.split("/")
    if len(path) > _LONGEST_PATH or len(parts) != 5 or parts[:2] != ["", VERSION]:
        return None
    try:
        name = PartName(*(unquote(part, errors="strict") for part in parts[2:]))
    except UnicodeDecodeError:
        return None
    return name if is_name(name) else None


def is_name(name: PartName) -> bool:
    """Return whether a name that somebody has sent is one of directories that a collector makes."""
    is_project = _HASHED.fullmatch(name.project) or project_directory(name.project) == name.project
    return bool(is_project) and split_name(part_name(name.run, name.host)) == name[1:]


def place_text(place: Place) -> str:
    """Return a place as a query has it."""
    return f"{place.segment}:{place.offset}:{place.made_ns}"


def place_in(text: str) -> Place | None:
    """Return the place that a query has; None where that is none."""
    return Place(*map(int, text.split(":"))) if _PLACE.fullmatch(text) else None


def journal_in(text: str) -> bytes | None:
    """Return the id of a journal that a query has; None where that is none."""
    return bytes.fromhex(text) if _JOURNAL.fullmatch(text) else None


def refusal_in(body: bytes) -> Refusal | None:
    """Return what an answer's body says of an error; None where something else answered than a collector."""
    try:
        return msgspec.json.decode(body, type=Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def deflated(message: bytes) -> bytes | None:
    """Return a message deflated; None where that gains nothing."""
    found = zlib.compress(message, 1)
    return found if len(message) - len(found) >= _LEAST_GAIN else None


class InflatesTooFar(ValueError):
    """The bytes of a message would be more than are allowed."""


def inflated(body: bytes, most: int) -> bytes:
    """Return the message that a deflated body holds.

    Args:
        body: of the request.
        most: bytes that the message may have; no more are made of it.

    Raises:
        InflatesTooFar: it has more.
        Garbage: it is not deflated, or cut.
    """
    inflater = zlib.decompressobj()
    try:
        message = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise Garbage(f"the message cannot be inflated: {error}") from error
    if len(message) > most:
        raise InflatesTooFar(f"expected a message of at most {most} bytes, and it inflates to more")
    if not inflater.eof or inflater.unused_data:
        raise Garbage("the message cannot be inflated: it ends too early or too late")
    return message
