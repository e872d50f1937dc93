"""Join: the payload of the frame with which another process begins to write to a run: who it is."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

from asynctrack.records.codec import encode, make_plain

# A label may be part of the name of a file, of a metric and of a table's row, and a run may come from anywhere.
LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,127}")

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """A process that writes to a run beside the one that has opened it. Its frame is the first of its ring.

    Attributes:
        writer: its label. A process that is started again keeps the label and has another ring.
        rank: of the process among those that were started together; None where it has none.
        host: the name of its machine.
        boot: an id of the machine since it was started, to tell two machines of one name apart; empty where there is none.
        pid: of the process.
        owner: whether the run ends as this process does, though another has opened it.
        forked: whether it is a forked child of a process that has joined, whose label it has; it is no writer of its own.
        expected: how many writers the run has in all; None where that is not known.
        config: what the process was given as config. What of it counts has a config frame of its own.
        time_ns: when it joined, nanoseconds since the epoch.
    """

    writer: str
    rank: _Count | None = None
    host: str = ""
    boot: str = ""
    pid: _Count = 0
    owner: bool = False
    forked: bool = False
    expected: _Count | None = None
    config: dict[str, Any] = {}
    time_ns: _Count = 0

    def __post_init__(self) -> None:
        if not LABEL.fullmatch(self.writer):
            raise ValueError(f"{self.writer!r:.160} is no label of a writer")


def join_payload(join: Join, *, owns: bool = False) -> bytes:
    """Encode the payload of the frame with which a process joins a run, and perhaps owns it from there on."""
    return encode(msgspec.structs.replace(join, config=make_plain(join.config), owner=owns or join.owner))


def default_label(host: object, pid: object) -> str:
    """Return the label of a process that has none: its host and pid."""
    label = re.sub(r"[^A-Za-z0-9_.:-]", "_", f"{host}:{pid}")[:128]
    return label if LABEL.fullmatch(label) else f"_{label[:127]}"
