"""Damage: finds what is missing of a run by `run.json` and the sizes of the journal's segments, and warns its reader once. Runs anywhere.

The reader of a segment finds what cannot be read within it. This module finds what reading alone does not show: an end that is cut off reads as a
journal that ends there, and a live one does at every moment. So an end is missing only where `run.json` says that the run has ended, and knows of more.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from asynctrack._system import private
from asynctrack._system.throttle import ONCE, Throttle
from asynctrack.errors import DamagedJournal, ManifestUnreadable, NotARun
from asynctrack.journal.layout import HEADER_BYTES, Position, segment_name, unpack_segment_header
from asynctrack.journal.manifest import FILE_NAME, Manifest, load
from asynctrack.journal.reader import HARMED_HEADER, Damage, begun, missing_segments

_throttle: Final = Throttle()


def scan(run: Path) -> list[Damage]:
    """Find what is damaged of a run, without reading its journal.

    Raises:
        UnsupportedVersion: a newer asynctrack wrote it.
    """
    try:
        said = load(run)
    except ManifestUnreadable as error:
        return [_of_manifest(run, error), *_gaps(run)]
    except NotARun:
        return _gaps(run)
    return [*_gaps(run), *_missing_end(run, said)]


def manifest_of(run: Path) -> Manifest | None:
    """Load `run.json`, for `unreached_end`; return None where it cannot be read.

    Raises:
        UnsupportedVersion: a newer asynctrack wrote it, whose fields may mean something else.
    """
    try:
        return load(run)
    except NotARun:
        return None


def unreached_end(run: Path, said: Manifest | None, read_to: Position) -> list[Damage]:
    """Return the end of a run's journal that was not reached, where `run.json` knows of one.

    Args:
        run: its directory.
        said: `run.json` as it was before the journal was read.
        read_to: the position up to which the journal could be read.
    """
    if said is None or said.status == "running" or read_to[:2] >= said.position[:2]:
        return []
    path = _segment(run, read_to.segment)
    torn = Damage(
        path, read_to.offset, _size(path) - read_to.offset, "no batch begins there, and the run's end is missing"
    )
    return _missing_end(run, said) or [torn]


def warn(run: Path, damage: Sequence[Damage]) -> None:
    """Warn of a damaged run, once in this process."""
    name = os.path.realpath(run)
    if damage and _throttle.admit(name, ONCE):
        warnings.warn(DamagedJournal(run, damage), stacklevel=level_of_the_reader())


def level_of_the_reader() -> int:
    """Return the stack level of the line that reads the run, the first that is not ours, as `warnings.warn` counts from its caller."""
    level, frame = 0, private.frame(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "asynctrack":
        level, frame = level + 1, frame.f_back
    return level + 1


def _of_manifest(run: Path, error: ManifestUnreadable) -> Damage:
    path = os.fspath(run / FILE_NAME)
    return Damage(path, 0, _size(path), f"{error.found}; the journal stands in")


def _gaps(run: Path) -> list[Damage]:
    """Return the segments that are missing or empty though later ones exist."""
    directory = os.fspath(run / "journal")
    try:
        there = begun(directory)
    except OSError:
        return []
    gaps = [
        missing_segments(directory, before + 1, number)
        for before, number in pairwise([0, *there])
        if number - before > 1
    ]
    harmed = [path for path in (_segment(run, number) for number in there) if not _has_header(path)]
    return gaps + [Damage(path, 0, min(_size(path), HEADER_BYTES), HARMED_HEADER) for path in harmed]


def _has_header(path: str) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return unpack_segment_header(file.read(HEADER_BYTES)) is not None
    except OSError:
        return True  # removed under us, or not to be read: its reader will say so


def _missing_end(run: Path, said: Manifest) -> list[Damage]:
    """Return what the journal lacks of what `run.json` says."""
    segment, offset, _ = said.position
    path = _segment(run, segment)
    if said.status == "running" or not segment or _size(path) >= offset:
        return []
    if not os.path.isdir(run / "journal"):
        return []  # the files of its backends are read instead
    found = "it ends here, before the run does" if os.path.exists(path) else "it is missing, and has the run's end"
    return [Damage(path, _size(path), offset - _size(path), found)]


def _segment(run: Path, number: int) -> str:
    return os.path.join(run, "journal", segment_name(number))


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
