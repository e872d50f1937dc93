"""Media store: puts what was logged as a value of its own under a run's `media/`, where its reference says. Runs in a delivery, on a thread.

    media/images/0a3f...c1.png       named by the hash of the content, or, of a file that was logged by its path, by that of path, size and time
    media/tables/77b0...09.json      {"columns": [...], "data": [[...]]}
    media/html/, media/texts/
    media/artifacts/51cd...2e/       an artifact's files, by their names in it
    media/images/9d04...77.png.missing   why there is none

What is there stays as it is, so it does not matter which of a run's deliveries comes first, how many come at once, and how often one is killed. A
file is there when it is whole. One that was logged by its path, and has changed or gone since, is never there: the first delivery that finds it so
says that for all of them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asynctrack._system import permissions, trust
from asynctrack.backends.base import ActionRequired, Batch
from asynctrack.errors import EnvironmentFailure
from asynctrack.records.media_types import LoggedFile, Media, media_in, missing_path, sealed, unicode

FOLDER: Final = "media"

# Read of a file at once. Arbitrary.
_CHUNK_BYTES: Final = 1 << 20

# Errors that another try meets again: a file and a folder of one name, or a name that is too long.
_NEVER: Final = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})

_log = logging.getLogger("asynctrack.delivery")


def store(run: Path, batch: Batch) -> None:
    """Store the media of a batch.

    Raises:
        OSError: the disk does not take them; all can be tried again.
        ActionRequired: `media/` leads out of the run's directory.
    """
    for data in (*(record.data for record in batch.records), *(update.data for update in batch.updates)):
        for media in media_in(data):
            if media.path is not None:
                store_one(run, media, media.path)


def store_one(run: Path, media: Media, path: str) -> None:
    """Store one medium at its path below the run's directory.

    Raises:
        OSError: the disk does not take it; it can be tried again.
        ActionRequired: `media/` leads out of the run's directory.
    """
    target = run / path
    if target.exists() or (run / missing_path(path)).exists():
        return
    _make_folder(run, target.parent)
    if media.kind == "artifact" or media.files:
        _copy(media, target)
        return
    try:
        content = media.encode()
    except (ValueError, TypeError, KeyError) as error:  # the bytes are not what our own values write
        _give_up(media, target, f"it cannot be encoded: {error}")
        return
    with appearing(target) as temporary:
        _write(temporary, content)


def note_missing(run: Path, media: Media, why: str) -> None:
    """Note that a medium has no file, and never will have one.

    Raises:
        OSError: the disk does not take it; it can be tried again.
        ActionRequired: `media/` leads out of the run's directory.
    """
    target = run / str(media.path)
    _make_folder(run, target.parent)
    _give_up(media, target, why)


def _make_folder(run: Path, folder: Path) -> None:
    """Make a folder below `media/`, where it is missing.

    Raises:
        ActionRequired: there is a link, which may lead anywhere.
    """
    for path in (run / FOLDER, folder):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, permissions.DIRECTORY)  # never the run's directory: somebody may have removed that
        if path.is_symlink():
            raise ActionRequired(f"{path} is a link, which may lead anywhere; make it a directory")


def _copy(media: Media, target: Path) -> None:
    """Copy what was logged by its path, if all of it is as it was.

    It takes the seal of the caller who logged it: a run from elsewhere must not fetch this user's files.
    """
    if not trust.is_sealed("", FOLDER, {**sealed(media.files), trust.SEAL: media.seal}, here=True):
        why = "these files were logged by somebody else, or there is no place for this user's key; see `asynctrack._system.trust`"
        _give_up(media, target, why if media.files else "it has no files")
        return
    try:
        with appearing(target) as temporary:
            if media.kind == "artifact":
                os.mkdir(temporary, permissions.DIRECTORY)
            for file in media.files:
                copy = temporary / file.name if media.kind == "artifact" else temporary
                permissions.make_directories(copy.parent)
                _copy_file(file, copy)
    except _Changed as reason:
        _give_up(media, target, str(reason))
    except OSError as error:
        if error.errno not in _NEVER:
            raise
        _give_up(media, target, f"its files cannot lie beside each other: {error}")


class _Changed(EnvironmentFailure):
    """A file is not as it was when it was logged."""


def _copy_file(file: LoggedFile, copy: Path) -> None:
    """Copy a file.

    Raises:
        _Changed: it is not as it was.
    """
    try:
        source = os.open(file.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _Changed(f"{unicode(file.place)} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(source).st_mode):
        os.close(source)
        raise _Changed(f"{unicode(file.place)} has changed since it was logged: it is no file any more")
    with open(source, "rb") as content, open(permissions.create(copy), "wb") as written:
        shutil.copyfileobj(content, written, _CHUNK_BYTES)
        found = os.fstat(source)
        if (found.st_size, found.st_mtime_ns) != (file.size, file.mtime_ns) or written.tell() != file.size:
            raise _Changed(f"{unicode(file.place)} has changed since it was logged")
        written.flush()
        os.fsync(written.fileno())


def _give_up(media: Media, target: Path, why: str) -> None:
    """Say that there is no file, and never will be."""
    _log.warning("%r of %s has no content: %s", media, target.parent.parent.parent, why)
    with appearing(target.with_name(missing_path(target.name))) as temporary:
        _write(temporary, why.encode())


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Make a file or folder that is there when it is whole, or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
    try:
        yield temporary
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():  # else another was faster
                raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with open(permissions.create(path), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
