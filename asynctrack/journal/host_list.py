"""Host list: the hosts whose journals were merged to a run's, and how each has ended, as the merger's notes say. Runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import msgspec

HostStatus = Literal["running", "finished", "failed", "crashed", "preempted", "lost"]


class HostStats(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of one host that has a part of a run.

    Attributes:
        host: its name.
        journal: the id of its journal, in hexadecimal: the host's part of the run belongs to the journal that first wrote it.
        status: how its part of the run has ended; "lost" where nothing has come from it for long; "running" until then.
        opens: whether its processes have opened the run, and did not join it.
        owns: whether the run ends as its part does.
        error: why it has failed, crashed or was lost.
        idle: rings of processes that were still there when it ended, and said nothing.
        ended_ns: when it ended, nanoseconds since the epoch; 0 while it runs.
        heard_ns: of a host that is lost, when something has come from it last, by the collector's clock; 0 of another.
        clock_offset_ns: what is added to a time of the host's clock to compare it with those of other hosts: the least that anything took from there,
            clocks included; None where nothing was measured.
        rings: of its processes, in hexadecimal, the last thousand.
    """

    host: str
    journal: str = ""
    status: HostStatus = "running"
    opens: bool = False
    owns: bool = False
    error: str | None = None
    idle: tuple[str, ...] = ()
    ended_ns: int = 0
    heard_ns: int = 0
    clock_offset_ns: int | None = None
    rings: tuple[str, ...] = ()


HostList = list[HostStats]

# Of a host that are kept: pools make and end processes by the thousand. Arbitrary.
_MOST_RINGS: Final = 1000

# The hosts that were asked for last, and the offset of each of their rings: to look through all of them for each change would take as long as to make it.
_offsets: tuple[Sequence[HostStats], dict[str, int]] = ((), {})


def learn(hosts: HostList, note: Mapping[str, Any]) -> HostList:
    """Return the hosts as they are after a note; it may be any."""
    name, kind = note.get("host"), note["note"]
    if name is None:
        return hosts
    if kind == "host_joined":
        return hosts if find(hosts, name) else [*hosts, HostStats(host=name, journal=note.get("journal", ""))]
    if kind == "host_opened":
        return [_changed(one, opens=one.host == name, owns=one.host == name) for one in hosts]
    if kind == "host_owns":
        return [_changed(one, owns=one.host == name) for one in hosts]
    if kind == "host_ring":
        ring = f"{int(note['ring'], 16):016x}"
        return [_changed(one, rings=(*one.rings, ring)[-_MOST_RINGS:]) if one.host == name else one for one in hosts]
    if kind == "host_clock":
        return [_changed(one, clock_offset_ns=note["offset_ns"]) if one.host == name else one for one in hosts]
    if kind in ("host_ended", "host_lost"):
        said = note.get("status") if kind == "host_ended" else "lost"
        status = said if said in get_args(HostStatus) else "crashed"
        changes = {"error": note.get("error"), "idle": tuple(note.get("idle", ())), "ended_ns": note["time_ns"]}
        changes["heard_ns"] = note.get("heard_ns", 0) if kind == "host_lost" else 0
        return [_changed(one, status=status, **changes) if one.host == name else one for one in hosts]
    if kind == "host_reopened":
        changes = {"status": "running", "error": None, "idle": (), "ended_ns": 0, "heard_ns": 0}
        return [_changed(one, **changes) if one.host == name else one for one in hosts]
    return hosts


def find(hosts: HostList, name: str) -> HostStats | None:
    """Find a host by its name; None where it has no part of the run."""
    return next((one for one in hosts if one.host == name), None)


def offset_of(hosts: Sequence[HostStats], ring: str) -> int:
    """Return what is added to a time that came through a ring, to compare it with those of other hosts; nanoseconds.

    Args:
        hosts: of the run; none where it has one machine.
        ring: its id, in hexadecimal.
    """
    if not hosts:
        return 0
    global _offsets
    known, by_ring = _offsets
    if known is not hosts:  # each change makes another list
        by_ring = {each: one.clock_offset_ns for one in hosts if one.clock_offset_ns for each in one.rings}
        _offsets = hosts, by_ring
    return by_ring.get(ring, 0)


def end_of(hosts: HostList) -> dict[str, Any] | None:
    """Return the fields of the note that says how the run has ended; None while a host goes on.

    The status is that of the owner's host; a run whose owner's host is lost has crashed.
    """
    if not hosts or any(one.status == "running" for one in hosts):
        return None
    owner = next((one for one in hosts if one.owns), hosts[0])
    status = "crashed" if owner.status == "lost" else owner.status
    lost = [one.host for one in hosts if one.status == "lost"]
    idle = sorted({ring for one in hosts for ring in one.idle})
    more = {name: value for name, value in (("lost", lost), ("idle", idle)) if value}
    ended_ns = max(one.ended_ns for one in hosts)
    return {"status": status, "error": owner.error, **more, "time_ns": ended_ns}


def _changed(one: HostStats, **changes: Any) -> HostStats:
    return msgspec.structs.replace(one, **changes)
