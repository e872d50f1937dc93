"""Manifest: what a run is, `run.json`, and how the frames of the journal that are not records change it.

The journal is the truth and `run.json` its summary for people and tools; it says up to which position of the journal it
tells. Written by `init` when a run begins, so that readers find it at once, and from then on by the worker only; replaced atomically. One that is damaged
counts as missing: it is made anew from the journal.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Required, TypedDict

import msgspec

from asynctrack._system import permissions
from asynctrack.errors import ManifestUnreadable, NotARun, UnsafeFile, UnsupportedVersion
from asynctrack.journal import conflicts, host_list, safe_read, writer_list
from asynctrack.journal.conflicts import Conflict
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.host_list import HostStats
from asynctrack.journal.join import Join
from asynctrack.journal.layout import Position, segment_name
from asynctrack.journal.reader import Damage, Reader
from asynctrack.journal.registers import Stamps, admit
from asynctrack.journal.writer_list import WriterStats, WriterStatus
from asynctrack.queue.layout import CHECKPOINT, CONFIG, FAILURE, JOIN, LABELS, NOTE, START, SUMMARY
from asynctrack.records.codec import decode_as, decode_update, encode, from_json, light, make_plain, to_json

Status = Literal["running", "finished", "failed", "crashed", "preempted"]

FILE_NAME: Final = "run.json"
VERSION: Final = 1

# What decoding raises where another wrote the bytes, with good checksums: a run may come from anywhere.
UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

# Under this name of its config a run has what `Run.define_metric` was told.
METRICS: Final = "_metrics"

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


class _Note(TypedDict, total=False):
    """A note of the worker, with the fields that it may have."""

    note: Required[str]
    ring: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,16}$")]
    dropped: dict[str, int]
    end: str
    writer: str
    pid: Annotated[int, msgspec.Meta(ge=0)]
    status: Status | WriterStatus
    blind: bool
    error: str | None
    child: Annotated[int, msgspec.Meta(ge=0)]
    time_ns: Annotated[int, msgspec.Meta(ge=0)]
    idle: list[str]
    lost: list[str]
    host: str
    journal: str
    origin: str
    at: Annotated[int, msgspec.Meta(ge=0)]
    backends: dict[str, dict[str, Any]]
    heard_ns: Annotated[int, msgspec.Meta(ge=0)]
    offset_ns: Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]


_note: Final = msgspec.json.Decoder(_Note)
_NEEDED: Final = {
    "run_ended": {"status", "time_ns"},
    "ring_ended": {"ring", "dropped"},
    "dropped": {"ring", "dropped"},
    "child_failed": {"child", "error"},
    "host_joined": {"host", "journal"},
    "host_opened": {"host"},
    "host_owns": {"host"},
    "host_ring": {"host", "ring"},
    "host_ended": {"host", "status", "time_ns"},
    "host_lost": {"host", "time_ns"},
    "host_reopened": {"host"},
    "host_clock": {"host", "offset_ns"},
}
# A run may come from anywhere.
_LONGEST_TRACEBACK: Final = 64 << 10
# How many children that have failed are named: a program may lose thousands.
_MOST_CHILDREN: Final = 100


class Manifest(msgspec.Struct, kw_only=True):
    """The content of `run.json`.

    Attributes:
        version: of this format.
        id: of the run, unique in its project.
        name: for people.
        project: the directory above the run's.
        status: "running" until its owner has ended, and others have or have nothing more to say; then how its owner did, "crashed" where that died without a word.
        error: why a run has failed or crashed: what ended its `with` block or its process, what killed that, or its exit code.
        traceback: of the exception that has ended it, of 32 KiB at most; where its owner has left none that of the first other process that has failed.
        failed_children: forked processes that log to it and have failed, the first hundred, as "pid" and "error"; they do not decide on the status.
        created_at: UTC, ISO 8601.
        ended_at: the same, None while it runs.
        config: what the run was started with, and what was set later.
        summary: what was set for the run as a whole.
        stamps: when each key of config and summary was changed last since the run was opened, and through which ring: see `registers`.
        conflicts: names of config and summary that two writers have set to different values since the run was opened, the first hundred.
        labels: what names the run beside its name: "entity", "group", "job_type", "notes" and "tags", where it has them.
        checkpoint: the counters of the last checkpoint.
        dropped: records that were turned away, by reason.
        dropped_by_ring: the last word of each ring that has turned some away.
        writers: the processes that write to it, but for forked children: those of the last session, each with how it has ended.
        earlier_writers: those of earlier sessions.
        hosts: the machines whose parts were merged to this run, each with how its part has ended; none of a run of one machine.
        backends: their settings by name, secrets only as references to the environment.
        backends_when_merged: the same of a host's part of a run: the merged run has these, and the part has none.
        environment: interpreter, host and command, for people.
        offline: whether backends that need a network wait for `asynctrack sync`.
        limits: the worker's settings.
        position: of the journal, up to which this tells.
    """

    version: int = VERSION
    id: str
    name: str
    project: str
    status: Status = "running"
    error: str | None = None
    traceback: str | None = None
    failed_children: list[dict[str, Any]] = []
    created_at: str
    ended_at: str | None = None
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    stamps: Stamps = {}
    conflicts: list[Conflict] = []
    labels: dict[str, Any] = {}
    checkpoint: dict[str, Any] | None = None
    dropped: dict[str, int] = {}
    dropped_by_ring: dict[str, dict[str, int]] = {}
    writers: list[WriterStats] = []
    earlier_writers: list[WriterStats] = []
    hosts: list[HostStats] = []
    backends: dict[str, dict[str, Any]] = {}
    backends_when_merged: dict[str, dict[str, Any]] = {}
    environment: dict[str, Any] = {}
    offline: bool = False
    limits: dict[str, float] = {}
    position: Position = Position()

    def __post_init__(self) -> None:
        # A backend's name is that of files, and a run may come from anywhere: what could lead elsewhere is none.
        self.backends = _named(self.backends)
        self.backends_when_merged = _named(self.backends_when_merged)

    def apply(self, frame: Frame, ring: int = 0) -> bool:
        """Take a frame that is not a record into account; False where it cannot be read, and changes nothing.

        Args:
            frame: of the journal.
            ring: from which it came.
        """
        try:
            self._apply(frame, ring)
        except UNREADABLE:
            return False
        return True

    def label(self, fresh: Mapping[str, Any]) -> None:
        """Take other labels into account, and another name."""
        self.labels.update({label: value for label, value in fresh.items() if label != "name"})
        self.name = str(fresh.get("name", self.name))

    def _apply(self, frame: Frame, ring: int) -> None:
        if frame.kind == CONFIG:
            self._change("config", self.config, frame, ring)
        elif frame.kind == SUMMARY:
            self._change("summary", self.summary, frame, ring)
        elif frame.kind == CHECKPOINT:
            self.checkpoint = dict(decode_update(frame.payload)[1])
        elif frame.kind == LABELS:
            self.label(decode_update(frame.payload)[1])
        elif frame.kind == START:
            start = decode_as(frame.payload, Manifest)
            if self.position == Position() and not any(writer.is_owner for writer in self.writers):
                # The first of the journal: a process that announced the run may have been killed before it could say more.
                self.created_at = start.created_at
            self._list_opener(ring, start)
            self._resume(start)
        elif frame.kind == JOIN:
            self.writers = writer_list.join_run(self.writers, ring, decode_as(frame.payload, Join))
        elif frame.kind == FAILURE:
            self._fail(decode_update(frame.payload)[1], f"{ring:016x}")
        elif frame.kind == NOTE:
            self._note(read_note(frame))

    def _change(self, what: str, content: dict[str, Any], frame: Frame, ring: int) -> None:
        """Make the change that a frame tells of to the config or summary, as far as it counts."""
        time_ns, fresh, removed = decode_update(frame.payload)
        fresh, stamp = light(fresh), (time_ns, f"{ring:016x}")
        known = self.stamps.get(what, {})
        opener = self._opener() if what == "config" else None
        self.conflicts = conflicts.learn(self.conflicts, what, content, known, stamp[1], fresh, self._label_of, opener)
        fresh, removed = admit(self.stamps, what, stamp, fresh, removed, self.hosts)
        for name in removed:
            content.pop(name, None)
        content.update(fresh)

    def _list_opener(self, ring: int, start: Manifest) -> None:
        """List the process that opens the run; those of the session before, and their errors, are kept apart."""
        before = self.writers
        session = writer_list.last_session(self.earlier_writers, before) + 1
        self.writers = writer_list.open_run(before, ring, start.environment, start_time_ns(start), session)
        self.earlier_writers = writer_list.of_earlier_sessions(self.earlier_writers, before)

    def _label_of(self, ring: str) -> str | None:
        one = writer_list.find(self.writers, ring)
        return None if one is None else one.writer

    def _opener(self) -> str | None:
        """Return the label of the process that has opened the run with a config; None where it was resumed, since then the config may be of earlier sessions."""
        if self.earlier_writers or writer_list.last_session(self.writers) > 1:
            return None
        return writer_list.label_in(self.environment)

    def _resume(self, start: Manifest) -> None:
        """Take note that the run was opened, for the first time or again."""
        self.status, self.error, self.ended_at, self.failed_children = "running", None, None, []
        self.traceback = None
        self.config.update(start.config)
        self.conflicts = []
        self.stamps = {}  # what was set before is older, whatever the clock of another machine says
        self.labels.update(start.labels)
        self.name = self.name if start.name == start.id else start.name
        if not self.hosts:  # what a host's part was delivered to is the host's affair
            self.backends.update(start.backends)
        self.backends_when_merged.update(start.backends_when_merged)
        self.environment, self.limits, self.offline = start.environment, start.limits, start.offline

    def _note(self, note: dict[str, Any]) -> None:
        if note.get("dropped"):
            self.dropped_by_ring[note["ring"]] = note["dropped"]
            self.dropped = {}
            for counts in self.dropped_by_ring.values():
                for reason, count in counts.items():
                    self.dropped[reason] = self.dropped.get(reason, 0) + count
        if note["note"] == "dropped":
            self.writers = writer_list.change(self.writers, note["ring"], dropped=note["dropped"])
        if note["note"] == "ring_ended":
            if writer_list.find(self.earlier_writers, f"{int(note['ring'], 16):016x}") is None:
                self.writers = writer_list.end_ring(self.writers, note)
            else:
                self.earlier_writers = writer_list.end_ring(self.earlier_writers, note)
        if note["note"] == "run_ended":
            self.writers = writer_list.end_run(self.writers, note)
            self.status = note["status"]
            self.error = note.get("error") or self.error
            self.ended_at = _iso(note["time_ns"])
        if note["note"] == "run_reopened":
            self.status, self.ended_at = "running", None
        if note["note"].startswith("host_"):
            if note["note"] == "host_reopened":
                self._forget_error_of(note["host"])
            self.hosts = host_list.learn(self.hosts, note)
            if note["note"] == "host_opened":
                self.backends = _named(note.get("backends", {}))
        if note["note"] == "child_failed":
            self._failed(note["child"], note["error"])

    def _forget_error_of(self, host: str) -> None:
        """Forget the error of a host that goes on, where it was the run's: it was lost, or had crashed."""
        known = host_list.find(self.hosts, host)
        if known is not None and known.error == self.error:
            self.error = self.traceback = None

    def _fail(self, said: dict[str, Any], ring: str) -> None:
        """Note why the run has failed, or one of the processes that write to it."""
        error, writer = str(said["error"]), writer_list.find(self.writers, ring)
        if writer is not None:
            self.writers = writer_list.change(self.writers, ring, error=error)
        elif "pid" in said:
            self._failed(int(said["pid"]), error)
        is_owners = writer.is_owner if writer is not None else "pid" not in said
        if is_owners:
            self.error = error
        if isinstance(lines := said.get("traceback"), str) and (is_owners or self.traceback is None):
            who = f"process {said.get('pid')}" if writer is None else writer.writer
            self.traceback = lines[:_LONGEST_TRACEBACK] if is_owners else f"in {who}:\n{lines[:_LONGEST_TRACEBACK]}"

    def _failed(self, pid: int, error: str) -> None:
        if len(self.failed_children) < _MOST_CHILDREN:
            self.failed_children = [*self.failed_children, {"pid": pid, "error": error}]


def _named(backends: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the backends whose names can be those of files."""
    return {name: settings for name, settings in backends.items() if _NAME.fullmatch(name)}


def start_payload(manifest: Manifest) -> bytes:
    """Encode the payload of the frame that starts a run."""
    checkpoint = None if manifest.checkpoint is None else make_plain(manifest.checkpoint)
    plain = {name: make_plain(getattr(manifest, name)) for name in ("config", "summary", "labels", "environment")}
    return encode(msgspec.structs.replace(manifest, checkpoint=checkpoint, **plain))


def find_start(batch: FrameBatch) -> Manifest | None:
    """Find the run as it was started, if this batch has that frame."""
    for frame in batch.frames(skip_records=True):
        if frame.kind == START:
            with contextlib.suppress(*UNREADABLE):
                return read_start(frame)
    return None


def read_start(frame: Frame) -> Manifest:
    """Read the run as it was started, of the frame that says it.

    Raises:
        ValueError: the frame does not.
    """
    start = decode_as(frame.payload, Manifest)
    start.writers, start.earlier_writers, start.hosts = [], [], []  # they are listed by their frames
    return start


def unreadable(run: Path, batch: FrameBatch, frame: Frame) -> Damage:
    """Say what is wrong with a frame whose bytes are whole and mean nothing."""
    path = os.path.join(run, "journal", segment_name(batch.segment))
    return Damage(path, batch.offset, 0, f"record {frame.number} of the batch cannot be decoded")


def start_time_ns(start: Manifest) -> int:
    """Return when the run was opened that a start frame tells of: for the first time or again."""
    opened_at = datetime.fromisoformat(start.environment.get("opened_at") or start.created_at)
    return int(opened_at.timestamp() * 1e3) * 10**6


def read_note(frame: Frame) -> dict[str, Any]:
    """Read a note of the worker, as `worker.notes` writes them; what cannot be read says nothing."""
    try:
        note: dict[str, Any] = dict(_note.decode(frame.payload))
    except UNREADABLE:
        return {"note": ""}
    return note if note.keys() >= _NEEDED.get(note["note"], set()) else {"note": ""}


def load(run: Path) -> Manifest:
    """Read a run's `run.json`.

    Raises:
        NotARun: there is none.
        ManifestUnreadable: the same, since what is there is damaged, or something else.
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    path = run / FILE_NAME
    try:
        raw = msgspec.json.decode(safe_read.read(path))
        if isinstance(raw, dict) and isinstance(raw.get("version"), int) and raw["version"] > VERSION:
            raise UnsupportedVersion(path, raw["version"], VERSION)
        found = msgspec.convert(raw, Manifest)
        found.config, found.summary = from_json(found.config), from_json(found.summary)
    except FileNotFoundError:
        raise NotARun(run) from None
    except UnsafeFile as error:
        raise ManifestUnreadable(path, error.found) from error
    except (ValueError, RecursionError) as error:
        raise ManifestUnreadable(path, str(error) or type(error).__name__) from error
    return found


def as_started(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest as its journal will have it: what is not plain is made so, which may run code of the user's."""
    return decode_as(start_payload(manifest), dict[str, Any])  # to build a `Manifest` would take a millisecond more


def announce(run: Path, start: dict[str, Any]) -> None:
    """Write the first `run.json` of a run that begins here, so that it can be read before its worker has journaled anything.

    It need not survive a power cut, and is not waited for; a disk that does not take it leaves that to the worker.
    """
    with contextlib.suppress(OSError):
        replace_file(run / FILE_NAME, _as_json(start), durable=False)


def has_begun(run: Path, manifest: Manifest) -> bool:
    """Return whether anything of a run was journaled; else its caller has announced it, and is about to say more or was killed before it could."""
    if manifest.status != "running" or manifest.position != Position():
        return True
    if os.path.isdir(run / "cursors"):
        return True
    reader = Reader(run / "journal")
    try:
        return reader.next() is not None or bool(reader.damage)
    finally:
        reader.close()


def save(run: Path, manifest: Manifest) -> None:
    """Replace a run's `run.json`."""
    path = run / FILE_NAME
    try:
        replace_file(path, _encode(manifest))
    except IsADirectoryError:  # somebody has put a directory there: it is moved aside and kept
        os.rename(path, path.with_name(f"{FILE_NAME}.{os.urandom(4).hex()}.aside"))
        replace_file(path, _encode(manifest))


def _encode(manifest: Manifest) -> bytes:
    lists = {
        name: msgspec.to_builtins(getattr(manifest, name))
        for name in ("writers", "earlier_writers", "hosts", "conflicts")
    }
    return _as_json({**msgspec.structs.asdict(manifest), **lists})


def _as_json(fields: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(to_json(fields)), indent=2) + b"\n"


def replace_file(path: Path, content: bytes, mode: int = permissions.FILE, *, durable: bool = True) -> None:
    """Give a file new content at once: readers see the old or the new, and if it is durable also after a power cut."""
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def now_iso() -> str:
    """Return the time, UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
