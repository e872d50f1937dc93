"""Received files: what hosts send of files that were logged by their paths, on its way to where the merged run's readers look for it. Runs on a thread of a collector.

    incoming/0a3f...c1               a whole file, named by the SHA-256 of its content, which was checked; synced
    incoming/0a3f...c1.HOST.part     what has come of one
    media/images/9d04...77.png       a medium: a link to the whole file, so that it takes no second room
    media/artifacts/51cd...2e/       an artifact's files
    media/images/9d04...77.png.missing   why there is none, and where it is

A medium appears whole and synced, before the host sends the records that name it. Nothing is kept in memory: a collector that was killed goes on with the
part that it has. `incoming/` is removed when the run has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from asynctrack._system import permissions
from asynctrack.carriers.file_wire import PlacedMedium, Placing, SentFile, problem_of
from asynctrack.delivery.media_store import FOLDER as MEDIA
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.segment import sync_directory
from asynctrack.merging.merged_media import MergedMedia, copy, link
from asynctrack.merging.server.refused import Refused

FOLDER: Final = "incoming"

# What has come of a file is removed when nothing has for so long. Arbitrary: a host that is back after a day goes on.
PART_AGE_S: Final = 24 * 3600.0
# Files that are asked for at once. Arbitrary: the answer stays small.
_MOST_LACKING: Final = 256


class ReceivedFiles:
    """The files of one merged run.

    Args:
        run: its directory.
        most_bytes: of one file.
    """

    def __init__(self, run: Path, most_bytes: int) -> None:
        self._run = run
        self._folder = run / FOLDER
        self._media = MergedMedia(run)
        self._most_bytes = most_bytes

    def __repr__(self) -> str:
        return f"<ReceivedFiles of {self._run}>"

    def write(self, host: str, sha256: str, offset: int, size: int, chunk: bytes) -> None:
        """Write the next bytes of a file; the last make it count, once its hash is right.

        Args:
            host: from which they come.
            sha256: of the whole file.
            offset: in the file.
            size: of the whole file.
            chunk: the bytes.

        Raises:
            Refused: others come next, the hash is wrong, or the file is too large.
            OSError: they cannot be written.
        """
        if offset + len(chunk) > size:
            raise Refused("garbage", f"expected at most {size} bytes, and {offset + len(chunk)} come")
        self._check_size(size)
        whole, part = self._folder / sha256, self._part(host, sha256)
        if _size_of(whole) is not None:
            return
        self._media.make_folder(self._folder)
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, permissions.FILE), "rb") as file:
            here = os.fstat(file.fileno()).st_size
            if offset > here:
                raise Refused("incomplete", f"{here} bytes of the file are here, and byte {offset} comes", seen=here)
            _write_all(file.fileno(), chunk, offset)
            if max(here, offset + len(chunk)) < size:
                return
            os.ftruncate(file.fileno(), size)
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                part.unlink(missing_ok=True)
                raise Refused("incomplete", "the bytes of the file have another SHA-256: it must come again", seen=0)
            os.fsync(file.fileno())
        os.rename(part, whole)
        sync_directory(os.fspath(self._folder))

    def place(self, host: str, medium: PlacedMedium) -> Placing:
        """Put a medium where its records look for it, or say what must come first.

        Args:
            host: which has it.
            medium: of which files it consists.

        Raises:
            Refused: it is garbage, or too large.
            OSError: it cannot be written.
        """
        if (problem := problem_of(medium)) is not None:
            raise Refused("garbage", problem)
        target = self._run / medium.path
        if target.exists():
            return Placing(differs=_differs(target, medium))
        if medium.missing is not None:
            self._media.say_missing(medium.path, medium.missing)
            return Placing()
        for file in medium.files.values():
            self._check_size(file.size)
        lacking = {file.sha256 for file in medium.files.values() if not self._has(file)}
        if lacking:
            self._remove_old_parts()
            some = sorted(lacking)[:_MOST_LACKING]
            return Placing({sha256: _size_of(self._part(host, sha256)) or 0 for sha256 in some})
        try:
            self._media.put(medium.path, medium.files, lambda name, place: self._link(medium.files[name], place))
        except (FileExistsError, NotADirectoryError) as error:
            raise Refused("garbage", "two files of an artifact cannot lie beside each other") from error
        return Placing()

    def bytes(self) -> int:
        """Return how many bytes there are, also of media that deliveries have stored; a file with several names counts once."""
        sizes: dict[int, int] = {}
        for folder in (self._folder, self._run / MEDIA):
            for path, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        found = os.lstat(os.path.join(path, name))
                        sizes[found.st_ino] = found.st_size
        return sum(sizes.values())

    def clear(self) -> None:
        """Remove what only serves to receive: all media are where they belong, or come again."""
        if not self._folder.is_symlink():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            raise Refused(
                "too_large",
                f"expected a file of at most {self._most_bytes} bytes (--max-file of the collector)",
                limit="file",
            )

    def _has(self, file: SentFile) -> bool:
        """Return whether a whole file is here.

        Raises:
            Refused: it has another size than the host says.
        """
        size = _size_of(self._folder / file.sha256)
        if size is not None and size != file.size:
            raise Refused("garbage", f"the file with SHA-256 {file.sha256} has {size} bytes, and not {file.size}")
        return size is not None

    def _part(self, host: str, sha256: str) -> Path:
        return self._folder / f"{sha256}.{host}.part"

    def _link(self, file: SentFile, place: Path) -> None:
        with open(_open(self._folder / file.sha256), "rb") as whole:
            if not link(whole.fileno(), place):
                copy(whole.fileno(), place)

    def _remove_old_parts(self) -> None:
        """Remove what has come of files that nobody sends any more."""
        oldest = time.time() - PART_AGE_S
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(".part") and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.path)


def clean(directory: Path, mine: Callable[[str], bool] | None = None) -> None:
    """Remove what a collector that was killed has left of runs that have ended since, or of which no message came for long.

    Args:
        directory: of the merged runs, as `PROJECT/RUN`.
        mine: says by its id whether a run is one of this collector's; None where all are.
    """
    for folder in directory.glob(f"*/*/{FOLDER}"):
        run = folder.parent
        if mine is not None and not mine(run.name):
            continue
        with contextlib.suppress(AsynctrackError, OSError):
            if (run / "journal").exists():
                if manifests.load(run).status != "running":
                    ReceivedFiles(run, 0).clear()
            elif is_all_received(run) and os.stat(folder).st_mtime < time.time() - PART_AGE_S:
                shutil.rmtree(run, ignore_errors=True)


def is_all_received(run: Path) -> bool:
    """Return whether nothing is there of a run, but perhaps the files that its first message is to name."""
    try:
        return {entry.name for entry in os.scandir(run)} <= {FOLDER, MEDIA}
    except (FileNotFoundError, NotADirectoryError):
        return True


def _differs(target: Path, medium: PlacedMedium) -> bool:
    """Return whether what is there has another content than a medium."""
    return any(not _is(target / name if name else target, file) for name, file in medium.files.items())


def _is(path: Path, file: SentFile) -> bool:
    try:
        with open(_open(path), "rb") as content:
            if os.fstat(content.fileno()).st_size != file.size:
                return False
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _size_of(path: Path) -> int | None:
    """Return the size of a file; None where there is none."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
