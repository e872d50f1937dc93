"""Limits: how much a collector that serves takes from hosts, which may be anybody's."""

from __future__ import annotations

from typing import Final

import msgspec

from asynctrack.merging.merger import LOST_AFTER_S

_MIB: Final = 1 << 20


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a collector.

    Attributes:
        message_bytes: of a request's body. A message has half a MiB, or one batch that is longer: a large picture in one record.
        inflated_bytes: of the message that a deflated body makes.
        in_flight_bytes: of all bodies that are here and not merged yet; who comes beyond that comes again.
        file_bytes: of a file that was logged by its path.
        run_bytes: of a merged run's journal and such files.
        hosts: that one run may have.
        rings: that one run may have, one for each process that has written to it. A run of 20,000 takes two or three seconds to open.
        keep_free_bytes: of the disk; below that nothing is taken.
        open_runs: that are written to at once. Each has some files open.
        lost_after_s: a host that has been silent for so long counts as lost.
    """

    message_bytes: int = 64 * _MIB
    inflated_bytes: int = 256 * _MIB
    in_flight_bytes: int = 256 * _MIB
    file_bytes: int = 16 * 1024 * _MIB
    run_bytes: int = 64 * 1024 * _MIB
    hosts: int = 1024
    rings: int = 20_000
    keep_free_bytes: int = 1024 * _MIB
    open_runs: int = 2000
    lost_after_s: float = LOST_AFTER_S
