"""Hosts: how the machines of a merged run are shown: what is merged of each, how far behind that is, and what is waited for."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from asynctrack.cli import output
from asynctrack.cli.output import STATE_STYLES, Output, Piece, Styled, TableColumn
from asynctrack.client.run_state import State
from asynctrack.client.worker_registry import worker_of
from asynctrack.journal.host_list import HostList, HostStats, HostStatus
from asynctrack.journal.manifest import Manifest, read_note
from asynctrack.journal.tally import Tally
from asynctrack.journal.writer_list import WriterStatus, iso, last_by_label
from asynctrack.merging.host_reports import HostReport, HostsReport, load_reports
from asynctrack.reading.catalog import name_of

# How many are named in a line. Arbitrary.
_NAMED: Final = 3
# A collector on another machine, whose lock cannot be seen, is at it if it has said so within this. It says so each second.
_FRESH_S: Final = 10.0
# A time behind that is not worth a word, and one that a person should see. Arbitrary.
_SHORT_S: Final = 0.1
_LONG_S: Final = 5.0


class HostRow(msgspec.Struct, frozen=True, kw_only=True):
    """Tells how one host of a merged run stands.

    Attributes:
        host: its name.
        status: how its part of the run has ended; "lost" where nothing has come from it for long, "refused" where nothing of it is in the run,
            "waited for" where something is to come first.
        since: when it was heard last that is lost, or when its part ended; UTC, ISO 8601.
        error: why it has failed, crashed or was lost.
        owns: whether the run ends as its part does.
        writers: its processes by their labels, each with how it has ended.
        records: of it, that are merged.
        heard_at: when it gave its last sign of life; UTC, ISO 8601; None where the collector has not said.
        behind_bytes: of its journal, that are not merged; None where that is not known.
        behind_s: seconds between the last of what it has written and the last that is merged.
        clock_offset_s: seconds that are added to its times to compare them with those of other hosts; None where nothing was measured.
        waiting: what is missing of it, and may still come.
        refused: why it, or more of it, is not merged.
    """

    host: str
    status: HostStatus | str
    since: str | None = None
    error: str | None = None
    owns: bool = False
    writers: dict[str, WriterStatus] = {}
    records: int = 0
    heard_at: str | None = None
    behind_bytes: int | None = None
    behind_s: float | None = None
    clock_offset_s: float | None = None
    waiting: str | None = None
    refused: str | None = None


def describe_hosts(hosts: HostList) -> str | None:
    """Say how the hosts of a merged run have ended, and name those that went wrong; None where it was not merged."""
    if not hosts:
        return None
    ended = sum(one.status not in ("running", "lost") for one in hosts)
    wrong = [f"{one.host} {one.status}" for one in hosts if one.status not in ("running", "finished")]
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    told = f"{output.count(ended)} of {output.count(len(hosts))} hosts ended"
    return "; ".join([told, *([", ".join(wrong[:_NAMED]) + more] if wrong else [])])


def count_hosts(hosts: Mapping[str, HostStatus]) -> str:
    """Return of how many hosts nothing is amiss, as `1/2 (1 lost)`; empty where there are none."""
    if not hosts:
        return ""
    amiss = [status for status in hosts.values() if status not in ("running", "finished")]
    lost = sum(status == "lost" for status in amiss)
    words = [f"{count} {word}" for count, word in ((lost, "lost"), (len(amiss) - lost, "failed")) if count]
    return f"{len(hosts) - len(amiss)}/{len(hosts)}" + (f" ({', '.join(words)})" if words else "")


def show_hosts(run: Path, manifest: Manifest, state: State, *, as_json: bool) -> None:
    """Print a table of the hosts of a merged run, or one JSON document."""
    collecting = load_reports(run)
    rows, is_live = host_rows(run, manifest, collecting), _is_live(run, collecting)
    if as_json:
        told = {"path": str(run), "project": manifest.project, "id": manifest.id, "status": state, "collected": is_live}
        output.print_json({**told, "hosts": msgspec.to_builtins(rows)})
        return
    out = Output()
    out.line(Styled(name_of(run), "bold"), "  ", Styled(state, STATE_STYLES.get(state, "bold")))
    out.line()
    _print(out, rows)
    if manifest.status == "running":
        out.line()
        out.line(Styled(_collector(collecting, is_live=is_live), "dim" if is_live else STATE_STYLES["lost"]))


def host_rows(run: Path, manifest: Manifest, collecting: HostsReport | None) -> list[HostRow]:
    """Return how each host stands, by its name; those too of which nothing is in the run."""
    reports = {} if collecting is None else collecting.hosts
    records = _records_by_host(run)
    found = [_row(one, manifest, reports.get(one.host), records.get(one.host, 0)) for one in manifest.hosts]
    known = {one.host for one in manifest.hosts}
    found += [_strange(host, said) for host, said in reports.items() if host not in known]
    return sorted(found, key=lambda row: row.host)


def _row(one: HostStats, manifest: Manifest, said: HostReport | None, records: int) -> HostRow:
    said = HostReport() if said is None else said
    theirs = [writer for writer in (*manifest.earlier_writers, *manifest.writers) if writer.ring in one.rings]
    last = max((writer.session for writer in theirs), default=0)  # of this host: others may have gone on since
    writers = last_by_label([writer for writer in theirs if writer.session == last])
    return HostRow(
        host=one.host,
        status=one.status,
        since=_iso(one.heard_ns or one.ended_ns),
        error=one.error,
        owns=one.owns,
        writers={label: writer.status for label, writer in writers.items()},
        records=records,
        heard_at=_iso(said.heard_ns),
        behind_bytes=said.behind_bytes,
        behind_s=said.behind_s,
        clock_offset_s=None if one.clock_offset_ns is None else one.clock_offset_ns / 1e9,
        waiting=said.waiting,
        refused=said.refused,
    )


def _strange(host: str, said: HostReport) -> HostRow:
    """Return how a host stands of which nothing is in the run."""
    return HostRow(
        host=host,
        status="refused" if said.refused else "waited for",
        heard_at=_iso(said.heard_ns),
        behind_bytes=said.behind_bytes,
        waiting=said.waiting,
        refused=said.refused,
    )


def _records_by_host(run: Path) -> dict[str, int]:
    """Count what is merged of each host, by the headers of the journal."""
    with contextlib.closing(Tally(run / "journal")) as tally:
        tally.update()
        notes = [read_note(frame) for frame in tally.notes]
        owners = {int(note["ring"], 16): str(note["host"]) for note in notes if note["note"] == "host_ring"}
        found: dict[str, int] = {}
        for ring in tally.rings():
            host = owners.get(ring, "")
            found[host] = found.get(host, 0) + tally.put_by(ring)
    return found


def _is_live(run: Path, collecting: HostsReport | None) -> bool:
    """Return whether a collector is at the run."""
    with contextlib.suppress(OSError):
        if worker_of(run):
            return True
    if collecting is None or collecting.on == os.uname().nodename:
        return False
    return abs(time.time() - collecting.told_ns / 1e9) < _FRESH_S


def _print(out: Output, rows: list[HostRow]) -> None:
    columns = [
        TableColumn("host", cut=True),
        TableColumn("status"),
        TableColumn("writers"),
        TableColumn("records", right=True),
        TableColumn("last heard", right=True, rank=1),
        TableColumn("behind", right=True),
        TableColumn("clock", right=True, rank=2),
        TableColumn(rank=3),
    ]
    out.table(columns, [_cells(row) for row in rows], indent=2)
    for row in rows:
        for style, why in (("red", row.error), ("yellow", _waits(row.waiting)), ("red", row.refused)):
            if why:
                out.line(Styled(f"{row.host}: {why}", style), indent=2)


def _cells(row: HostRow) -> list[Piece]:
    wrong = sum(status not in ("running", "finished") for status in row.writers.values())
    since = f" since {_local(row.since)}" if row.status == "lost" and row.since else ""
    return [
        row.host,
        Styled(row.status + since, STATE_STYLES.get(row.status, "red" if row.refused else "")),
        output.short_count(len(row.writers)) + (f" ({wrong} failed)" if wrong else ""),
        output.count(row.records),
        _ago(row.heard_at),
        _behind(row),
        "-" if row.clock_offset_s is None else f"{row.clock_offset_s:+.3f} s",
        Styled("owner" if row.owns else "", "dim"),
    ]


def _behind(row: HostRow) -> Piece:
    """Return how far behind a host is: by bytes where they are known, and by time where that is long, or all that is known while it goes on."""
    if row.behind_bytes is None and row.status not in ("running", "lost"):
        return "-"
    told = [] if row.behind_bytes is None else [output.size(row.behind_bytes)]
    if row.behind_s is not None and (row.behind_bytes is None or row.behind_s >= _SHORT_S):
        told.append(output.duration(row.behind_s))
    return Styled(", ".join(told) or "-", "yellow" if row.behind_bytes or (row.behind_s or 0.0) > _LONG_S else "")


def _collector(collecting: HostsReport | None, *, is_live: bool) -> str:
    if is_live:
        who = "" if collecting is None else f": process {collecting.pid} on {collecting.on}"
        return f"it is being merged{who}"
    last = "" if collecting is None else f" since {_local(_iso(collecting.told_ns) or '')}"
    return (
        f"nothing merges it{last}: `asynctrack collect --follow`, or what else brings its parts, goes on where that was"
    )


def _waits(waiting: str | None) -> str | None:
    return waiting and f"{waiting}; it is waited for"


def _ago(at: str | None) -> str:
    if at is None:
        return "-"
    silent_s = time.time() - datetime.fromisoformat(at).timestamp()
    return f"{output.duration(max(0.0, silent_s if silent_s < 1 else round(silent_s)))} ago"


def _iso(time_ns: int) -> str | None:
    return iso(time_ns) if time_ns else None


def _local(at: str) -> str:
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return at
