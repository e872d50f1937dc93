"""Merged media: puts files where the records of a merged run look for them, whole and synced, before these are merged. Runs where it is merged.

A file is linked where that can be, so that it takes no second room.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from asynctrack._system import permissions
from asynctrack.carriers.file_wire import MOST_WHY
from asynctrack.delivery.media_store import appearing
from asynctrack.journal.segment import sync_directory
from asynctrack.records.media_types import missing_path

_READ_BYTES: Final = 1 << 20
# Where a file system has no links, or no more of them to one file; or where what is open has no path.
_NO_LINKS: Final = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.ENOENT)


class MergedMedia:
    """The media of one merged run.

    Args:
        run: its directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"<MergedMedia of {self._run}>"

    def put(self, path: str, names: Collection[str], bring: Callable[[str, Path], None]) -> None:
        """Put a medium where its records look for it.

        Args:
            path: of the medium in the run's directory.
            names: of its files, if it is a folder; else one that is empty.
            bring: called with each name, and where that file is to be.

        Raises:
            FileExistsError, NotADirectoryError: two files cannot lie beside each other.
            OSError: it cannot be written.
        """
        target = self._run / path
        self.make_folder(target.parent)
        with appearing(target) as temporary:
            if "" in names:
                bring("", temporary)
            else:
                _fill(temporary, names, bring)
        sync_directory(os.fspath(target.parent))

    def say_missing(self, path: str, why: str) -> None:
        """Note why a medium has no file, unless that is said already.

        Args:
            path: of the medium in the run's directory.
            why: for people; it may come from a stranger.

        Raises:
            OSError: it cannot be written.
        """
        note = self._run / missing_path(path)
        if note.exists():
            return
        self.make_folder(note.parent)
        text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in why[:MOST_WHY])
        with appearing(note) as temporary, open(permissions.create(temporary), "wb") as written:
            written.write(text.encode("utf-8", "backslashreplace"))
            written.flush()
            os.fsync(written.fileno())
        sync_directory(os.fspath(note.parent))

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those above it, so that they survive a power cut.

        Raises:
            OSError: it cannot be made, or there is a link, which may lead anywhere.
        """
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        permissions.make_directories(folder)
        for one in missing:
            sync_directory(os.fspath(one.parent))
        for one in (folder, folder.parent):
            if one != self._run.parent and one.is_symlink():
                raise OSError(errno.ELOOP, "it is a link, which may lead anywhere", os.fspath(one))


def link(source: int, place: Path) -> bool:
    """Give an open file one more name; returns whether that can be.

    Raises:
        OSError: something lies there already, or it cannot be written.
    """
    try:
        # Without a directory, which an absolute path does not need, CPython calls `link`, which does not follow.
        os.link(f"/proc/self/fd/{source}", place, src_dir_fd=source, follow_symlinks=True)
        return True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False


def copy(source: int, place: Path) -> None:
    """Copy an open file, and sync the copy.

    Raises:
        OSError: it cannot be read or written.
    """
    with open(os.dup(source), "rb") as content, open(permissions.create(place), "wb") as written:
        shutil.copyfileobj(content, written, _READ_BYTES)
        written.flush()
        os.fsync(written.fileno())


def _fill(folder: Path, names: Collection[str], bring: Callable[[str, Path], None]) -> None:
    os.mkdir(folder, permissions.DIRECTORY)
    folders = {folder}
    for name in names:
        path = folder / name
        permissions.make_directories(path.parent)
        folders.update(above for above in path.parents if above.is_relative_to(folder))
        bring(name, path)
    for one in folders:
        sync_directory(os.fspath(one))
