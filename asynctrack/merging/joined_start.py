"""Joined start: makes of the frame with which a host has opened its part of a run the frames with which it joins the merged run. Pure functions.

A merged run is opened once. The start of each other host becomes a join, with a frame for what of its config the run does not have, and padding: so the
ring keeps its positions, and every byte behind them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection

import msgspec

from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.join import LABEL, Join, default_label, join_payload
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.manifest import UNREADABLE, Manifest, start_time_ns
from asynctrack.queue.layout import CONFIG, FRAME_HEADER_BYTES, JOIN, KIND_SHIFT, PAD, START, frame_size
from asynctrack.records.codec import decode_as, encode, make_plain


class Opening(msgspec.Struct, frozen=True):
    """The frame with which a process has opened a host's part of a run.

    Attributes:
        frame: the frame itself.
        start: what it says.
    """

    frame: Frame
    start: Manifest

    @property
    def owns(self) -> bool:
        """Return whether the merged run ends as this process does: it is rank 0 of those that open one run together."""
        return bool(self.start.environment.get("joins")) and self.start.environment.get("rank") == 0


def opening_in(batch: FrameBatch) -> Opening | None:
    """Return the frame with which a host's part of a run is opened, if this batch begins with it."""
    frame = _first(batch)
    if frame is None or frame.kind != START:
        return None
    with contextlib.suppress(*UNREADABLE):
        return Opening(frame, decode_as(frame.payload, Manifest))
    return None


def owns_by_join(batch: FrameBatch) -> bool:
    """Return whether a batch begins with the frame of a process that joins the run, and says that it ends as this process does."""
    frame = _first(batch)
    if frame is not None and frame.kind == JOIN:
        with contextlib.suppress(*UNREADABLE):
            return decode_as(frame.payload, Join).owner
    return False


def as_join(batch: FrameBatch, opening: Opening, host: str, known: Collection[str]) -> bytes:
    """Return the frames of a batch, of which the first opens a host's part of a run, as those of a process that joins the merged run.

    Args:
        batch: of the host's journal.
        opening: its first frame.
        host: the name of the host.
        known: names in the config that the merged run was opened with; those stay as they are.
    """
    room, number, rest = opening.frame.end, opening.frame.number, batch.data[opening.frame.end :]
    join = _join_of(opening, host)
    config = {name: value for name, value in opening.start.config.items() if name not in known}
    told = [_frame(CONFIG, encode((join.time_ns, make_plain(config))), number)] if config else []
    for frames in (told, []):  # the config is left out where a stranger has made the start too short for both
        for spaces in (0, 8, 16):  # 8 bytes that are left are too few for padding
            longer = msgspec.structs.replace(join, boot=join.boot + " " * spaces)
            filled = _filled(b"".join([_frame(JOIN, join_payload(longer), number), *frames]), room, number)
            if filled is not None:
                return filled + bytes(rest)
    return _padding(room, number) + bytes(rest)  # no label fits: the run's own stands for it


def _first(batch: FrameBatch) -> Frame | None:
    if batch.header.start or batch.header.ring == NOTES_RING or not batch.whole or batch.whole[0][0]:
        return None
    return next(batch.frames(), None)


def _join_of(opening: Opening, host: str) -> Join:
    said = opening.start.environment
    writer, pid, boot = said.get("writer"), said.get("pid"), said.get("boot")
    return Join(
        writer=writer if isinstance(writer, str) and LABEL.fullmatch(writer) else default_label(host, pid),
        rank=_count(said.get("rank")),
        host=host,
        boot=boot if isinstance(boot, str) else "",
        pid=_count(pid) or 0,
        owner=opening.owns,
        expected=_count(said.get("expected")),
        time_ns=max(0, _time_ns(opening.start)),
    )


def _time_ns(start: Manifest) -> int:
    with contextlib.suppress(*UNREADABLE):
        return start_time_ns(start)
    return 0


def _frame(kind: int, payload: bytes, number: int) -> bytes:
    header = len(payload).to_bytes(8, "little") + (kind << KIND_SHIFT | number).to_bytes(8, "little")
    return (header + payload).ljust(frame_size(len(payload)), b"\0")


def _filled(frames: bytes, room: int, number: int) -> bytes | None:
    """Fill frames up to their room; None where they do not fit."""
    left = room - len(frames)
    if left == 0:
        return frames
    return frames + _padding(left, number) if left >= FRAME_HEADER_BYTES else None


def _padding(size: int, number: int) -> bytes:
    return _frame(PAD, bytes(size - FRAME_HEADER_BYTES), number)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
