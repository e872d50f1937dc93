"""Writer list: the processes that write to a run, and how each has ended, as the frames of its journal say. Runs anywhere.

A process is listed when it opens the run or joins it. A forked child of a listed process writes for that, unless it joins. A rank that is started again
keeps its label and is listed again. When the run is resumed the list begins anew, with those that still write, and the others are listed apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from asynctrack.journal.join import LABEL, Join, default_label

WriterStatus = Literal["running", "finished", "failed", "crashed", "terminated"]

# How many are listed: those that have finished make room for others. Arbitrary: a program may start thousands, one after the other.
MOST_WRITERS: Final = 1000


class WriterStats(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of one process that writes to a run.

    Attributes:
        writer: its label, such as `rank3`.
        ring: the id of its queue, in hexadecimal: no two processes have the same.
        rank: among the processes that were started together; None where it has none.
        host: the name of its machine.
        pid: of the process.
        is_owner: whether the run ends as it does.
        status: "running" until it has ended; then "finished", "failed", "crashed" (it died without a word), or "terminated" (by SIGTERM, as its
            parent ends it).
        error: what ended it, where something went wrong.
        accepted: records of this process that are in the journal; None while they are not counted.
        dropped: records of this process that were turned away, by reason.
        last_step: the step of its last record; None while that is not known, or it has logged none.
        joined_at: when it began, UTC, ISO 8601.
        ended_at: the same, None while it runs.
        session: the number of the session of the run in which it began, from 1 on; 0 where that is not known.
    """

    writer: str
    ring: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,16}$")]
    rank: int | None = None
    host: str = ""
    pid: int = 0
    is_owner: bool = False
    status: WriterStatus = "running"
    error: str | None = None
    accepted: int | None = None
    dropped: dict[str, int] = {}
    last_step: int | None = None
    joined_at: str | None = None
    ended_at: str | None = None
    session: int = 0

    @property
    def has_ended(self) -> bool:
        """Return True if nothing more comes from it."""
        return self.status != "running"


WriterList = list[WriterStats]


def open_run(
    writers: WriterList, ring: int, environment: Mapping[str, Any], time_ns: int, session: int = 1
) -> WriterList:
    """List the process that opens the run, as owner; those that have ended before are of an earlier session, see `of_earlier_sessions`."""
    host = environment.get("named_host") or environment.get("host", "")
    pid = environment.get("pid", 0)
    opened = WriterStats(
        writer=label_in(environment),
        ring=f"{ring:016x}",
        rank=_whole(environment.get("rank")),
        host=str(host),
        pid=_whole(pid) or 0,
        is_owner=True,
        joined_at=iso(time_ns),
        session=session,
    )
    return _added([one for one in writers if not _is_left(one)], opened)


def label_in(environment: Mapping[str, Any]) -> str:
    """Return the label of the process that has opened a run, as the run's start says."""
    given = environment.get("writer")
    if isinstance(given, str) and LABEL.fullmatch(given):
        return given
    return default_label(environment.get("named_host") or environment.get("host", ""), environment.get("pid", 0))


def of_earlier_sessions(earlier: WriterList, writers: WriterList) -> WriterList:
    """Return the processes of earlier sessions, with those that `open_run` leaves out; an owner of which nobody has heard the end has crashed."""
    for one in writers:
        if _is_left(one):
            earlier = _added(earlier, one if one.has_ended else msgspec.structs.replace(one, status="crashed"))
    return earlier


def last_session(*lists: WriterList) -> int:
    """Return the number of the last session that some processes were in; 0 where there are none."""
    return max((one.session for writers in lists for one in writers), default=0)


def join_run(writers: WriterList, ring: int, join: Join) -> WriterList:
    """List a process that joins the run; a forked child of one that has joined is not listed."""
    if join.forked:
        return writers
    joined = WriterStats(
        writer=join.writer,
        ring=f"{ring:016x}",
        rank=join.rank,
        host=join.host,
        pid=join.pid,
        is_owner=join.owner,
        joined_at=iso(join.time_ns),
    )
    if join.owner:
        writers = [msgspec.structs.replace(one, is_owner=False) if one.is_owner else one for one in writers]
    return _added([one for one in writers if one.ring != joined.ring], joined)


def end_ring(writers: WriterList, note: Mapping[str, Any]) -> WriterList:
    """Note how a process has ended, as the worker says."""
    ring = f"{int(note['ring'], 16):016x}"
    if find(writers, ring) is None:
        if not LABEL.fullmatch(note.get("writer", "")):
            return writers  # a forked child
        writers = _added(writers, WriterStats(writer=note["writer"], ring=ring, pid=note.get("pid", 0)))
    return [_ended(one, note) if one.ring == ring else one for one in writers]


def end_run(writers: WriterList, note: Mapping[str, Any]) -> WriterList:
    """Note that the run has ended: of those that are not said to go on nobody has heard the end."""
    idle = set(note.get("idle", ()))
    return [
        one if one.has_ended or one.ring in idle else msgspec.structs.replace(one, status="crashed") for one in writers
    ]


def change(writers: WriterList, ring: str, **changes: Any) -> WriterList:
    """Change what is said of one process."""
    return [msgspec.structs.replace(one, **changes) if one.ring == ring else one for one in writers]


def find(writers: WriterList, ring: str) -> WriterStats | None:
    """Find a process by the id of its ring; None where it is not listed."""
    return next((one for one in reversed(writers) if one.ring == ring), None)


def owner_of(writers: WriterList) -> WriterStats | None:
    """Find the process whose end is that of the run; None where it is not known."""
    return next((one for one in reversed(writers) if one.is_owner), None)


def count_expected(writers: WriterList) -> int:
    """Count the writers that have come, by their labels: where some have a rank, those alone. A data loader's worker has none."""
    ranked = {one.writer for one in writers if one.rank is not None}
    return len(ranked or {one.writer for one in writers})


def last_by_label(writers: WriterList) -> dict[str, WriterStats]:
    """Return the last process of each label."""
    return {one.writer: one for one in writers}


def iso(time_ns: int) -> str | None:
    """Convert nanoseconds since the epoch to ISO 8601, UTC; None where no date has them."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


def _is_left(one: WriterStats) -> bool:
    """Return whether a process has no part in a session that begins."""
    return one.has_ended or one.is_owner


def _added(writers: WriterList, one: WriterStats) -> WriterList:
    one = one if one.session else msgspec.structs.replace(one, session=last_session(writers))
    if len(writers) >= MOST_WRITERS:
        spare = next((before for before in writers if before.status == "finished" and not before.is_owner), writers[0])
        writers = [before for before in writers if before is not spare]
    return [*writers, one]


def _ended(one: WriterStats, note: Mapping[str, Any]) -> WriterStats:
    """Return a process that has ended as a note says. A later worker, which knows no more than the process's own word, changes nothing."""
    if one.has_ended and note.get("blind"):
        return one
    ended_at = one.ended_at or (iso(note["time_ns"]) if "time_ns" in note else None)
    error = note.get("error") or one.error
    return msgspec.structs.replace(
        one, status=_status_in(note), error=error, dropped=note["dropped"], ended_at=ended_at
    )  # fmt: skip


def _status_in(note: Mapping[str, Any]) -> WriterStatus:
    said = note.get("status", note.get("end"))
    if said in ("finished", "failed", "terminated"):
        return said  # type: ignore[no-any-return]  # it is one of these
    return "finished" if said == "left" else "crashed"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
