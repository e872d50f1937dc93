"""Brought files: brings the files that hosts have logged by their paths from the parts in a shared folder into the merged run, before the records that name them.

A part has the copy that its host has made of each file, or a note that says why there is none: see `delivery.kept_files`. Runs where the folder is merged.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from asynctrack.backends.base import kind_of
from asynctrack.backends.part_files import PartFiles
from asynctrack.carriers.file_wire import PlacedMedium, SentFile, problem_of
from asynctrack.carriers.parts import Part
from asynctrack.delivery.logged_files import files_in_message, places
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.merging.merged_media import MergedMedia, copy, link
from asynctrack.records.media_types import LoggedFile, Media, missing_path, unicode

# Of a note that says why there is no file. It may be anybody's.
_MOST_NOTE: Final = 4000
# What is said of a file that is not there, or is none; the last of two that cannot lie beside each other.
_NOT_THERE: Final = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EAGAIN, errno.EEXIST)
# Of media that need not be looked for again; beyond that they are forgotten, and looked for. Arbitrary: some 10 MB.
_MOST_KNOWN: Final = 100_000

_log = logging.getLogger("asynctrack.collector")


class NotCopiedYet(OSError):
    """A file that a record names is not in its host's part yet."""


class BroughtFiles:
    """Brings the files of one part.

    Args:
        run: the merged run's directory.
        part: of the host.
        settled_after_s: a host that has been silent for so long copies nothing any more.
        silent_s: returns for how long it has been silent.
    """

    def __init__(self, run: Path, part: Part, settled_after_s: float, silent_s: Callable[[], float]) -> None:
        self._run = run
        self._part = part
        self._settled_after_s = settled_after_s
        self._silent_s = silent_s
        self._media = MergedMedia(run)
        self._known: set[str] = set()

    def __repr__(self) -> str:
        return f"<BroughtFiles of {self._part.path}>"

    def forget(self) -> None:
        """Look again for what was there: the merged run may have lost it."""
        self._known.clear()

    def bring(self, message: bytes) -> None:
        """Bring the files that a message names.

        Raises:
            NotCopiedYet: one of them is still to come.
            OSError: they cannot be written.
        """
        for media in _found_in(message, self._part.path):
            path = str(media.path)
            if path not in self._known:
                self._bring(media, path)
                self._known.add(path)
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()

    def _bring(self, media: Media, path: str) -> None:
        if self._is_there(media, path) or self._take(media, path):
            return
        why = self._why_missing(path)
        if why is None and not self._copies():
            return  # a delivery looks for it at its own path
        if why is None and self._silent_s() < self._settled_after_s:
            raise NotCopiedYet(errno.EAGAIN, "a file that a record names is not in the part yet", self._told(media))
        if any(_is_as_it_was(file) for file in media.files):
            return  # deliveries on this machine see it, and may take more than travels
        host = self._part.host
        if why is None:
            why = f"its host had not copied it when nothing more came from there; {places(media, host)}"
        self._media.say_missing(path, why if f"{host}:" in why else f"{why} (host {host})")

    def _is_there(self, media: Media, path: str) -> bool:
        """Return whether the merged run has it. One of another host with the same path, size and time of change stays, whatever it holds."""
        target = self._run / path
        if not target.exists():
            return False
        with contextlib.suppress(OSError):
            if any(not self._is_same(file, path, target) for file in media.files):
                what = "the merged run has a file of the same path, size and time of change, with other content, and keeps that"
                _log.warning("%s: %s is left out: %s", self._part.path, path, what)
        return True

    def _is_same(self, file: LoggedFile, path: str, target: Path) -> bool:
        here, there = self._part.path / path, target
        if os.path.isdir(there):
            here, there = here / file.name, there / file.name
        return os.path.samefile(here, there) or filecmp.cmp(here, there, shallow=False)

    def _take(self, media: Media, path: str) -> bool:
        """Take it from the part; returns whether it is there, whole."""
        sizes = {(file.name if media.kind == "artifact" else ""): file.size for file in media.files}

        def bring(name: str, place: Path) -> None:
            with _opened(self._part.path, (*path.split("/"), *name.split("/"))) as source:
                found = os.fstat(source)
                if not stat.S_ISREG(found.st_mode) or found.st_size != sizes[name]:
                    raise OSError(errno.EAGAIN, "it is not as it was logged")
                # What is another user's could be written by them again.
                if found.st_uid != os.geteuid() or not link(source, place):
                    copy(source, place)

        if not os.path.lexists(self._part.path / path):
            return False
        try:
            self._media.put(path, sizes, bring)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return False
        return True

    def _why_missing(self, path: str) -> str | None:
        try:
            with _opened(self._part.path, missing_path(path).split("/")) as note:
                return os.read(note, _MOST_NOTE).decode("utf-8", "replace")
        except OSError:
            return None

    def _copies(self) -> bool:
        """Return whether the part gets copies, as far as it is known."""
        with contextlib.suppress(AsynctrackError, OSError):
            return kind_of(PartFiles()) in manifests.load(self._part.path).backends
        return True

    def _told(self, media: Media) -> str:
        return places(media, self._part.host).removeprefix("it is ")


def _found_in(message: bytes, part: Path) -> list[Media]:
    """Return the media of a message that can have files. It may be anybody's: the merger judges the rest of it."""
    try:
        found = files_in_message(message, part)
    except Exception:  # what a stranger has written was not foreseen; the others' files are brought
        _log.exception("%s: its files cannot be looked for", part)
        return []
    return [media for media in found if _can_be(media)]


def _can_be(media: Media) -> bool:
    """Return whether its files lead nowhere else, and have places that can be named."""
    try:
        for file in media.files:
            unicode(file.place)
    except ValueError:
        return False
    names = [file.name if media.kind == "artifact" else "" for file in media.files]
    files = {name: SentFile("0" * 64, file.size) for name, file in zip(names, media.files, strict=True)}
    return problem_of(PlacedMedium(str(media.path), files)) is None


def _is_as_it_was(file: LoggedFile) -> bool:
    """Return whether this machine sees a file at its own path, as it was when it was logged."""
    try:
        found = os.stat(file.place, follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns)


@contextlib.contextmanager
def _opened(directory: Path, names: tuple[str, ...] | list[str]) -> Iterator[int]:
    """Open a file below a directory that may be a stranger's: no link is followed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(None, names):
            before, found = found, os.open(name, flags, dir_fd=found)
            os.close(before)
        yield found
    finally:
        os.close(found)
