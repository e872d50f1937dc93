"""Registers: which change of a run's config or summary counts, where several processes make them. Runs anywhere.

Each key is a register: the last time wins, and of two changes at one time that of the ring with the greater id. So any order in which the changes of
several rings arrive gives the same. The changes of one ring count in their order, whatever its clock does meanwhile. Between the hosts of a merged run
the times are corrected by what is known of their clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asynctrack.journal.host_list import HostStats, offset_of

Stamp = tuple[int, str]
"""When a key was set or removed last, nanoseconds since the epoch by the clock of its host, and through which ring, in hexadecimal."""

Stamps = dict[str, dict[str, Stamp]]
"""The stamp of each key, by "config" and "summary"; a key that was removed has one, too."""


def admit(
    stamps: Stamps,
    what: str,
    stamp: Stamp,
    fresh: Mapping[str, Any],
    removed: Sequence[str],
    hosts: Sequence[HostStats] = (),
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take a change into account, and return the part of it that counts: what is set, and the names that are removed before that.

    Args:
        stamps: of what has come so far; they are brought up to date.
        what: "config" or "summary".
        stamp: of the change.
        fresh: new values by key.
        removed: names that are removed.
        hosts: of a merged run.
    """
    known = stamps.setdefault(what, {})
    counts = [name for name in dict.fromkeys([*removed, *fresh]) if _counts(known.get(name), stamp, hosts)]
    for name in counts:
        before = known.get(name, stamp)
        known[name] = before if before[1] == stamp[1] and before > stamp else stamp
    return {name: fresh[name] for name in counts if name in fresh}, tuple(name for name in counts if name in removed)


def _counts(before: Stamp | None, stamp: Stamp, hosts: Sequence[HostStats]) -> bool:
    return before is None or before[1] == stamp[1] or _corrected(stamp, hosts) >= _corrected(before, hosts)


def _corrected(stamp: Stamp, hosts: Sequence[HostStats]) -> Stamp:
    time_ns, ring = stamp
    return time_ns + offset_of(hosts, ring), ring
