"""Run place: puts what was found into a run's directory, whole or not at all. Runs in the collecting process, and in the worker. Standard library only.

The directory is opened once, before anything is looked for: it is never made again, and where it is moved the files go along. A file has no name until it is
whole, so nothing is left where this is killed. No link is followed. What an earlier session has left is kept under a number.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from typing import Any, Final

from asynctrack._system import permissions

NAME: Final = "environment.json"
DIFF: Final = "uncommitted.diff"
# How many earlier sessions are kept that differ from the next. Arbitrary: of more the first ones are.
MOST_EARLIER: Final = 99
# Two sessions that differ in nothing else are not told apart.
# In this order the file has what is known.
_ORDER: Final = (
    "version", "opened_at", "collected_at", "git", "script", "arguments", "directory", "host", "user", "python", "implementation", "executable", "platform",
    "packages", "cpu", "memory_bytes", "gpus", "gpu_driver", "scheduler",
)  # fmt: skip
_OF_A_MOMENT: Final = ("collected_at", "opened_at", "scheduler")
_MOST_BYTES: Final = 8 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Of a file system that knows no file without a name, or that cannot give it one.
_NOT_THERE: Final = (
    errno.EOPNOTSUPP,
    errno.EISDIR,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.EXDEV,
    errno.ENOENT,
    errno.EACCES,
)


def open_run(path: str, identity: tuple[int, int] | None = None) -> int:
    """Open a run's directory.

    Args:
        path: where it is.
        identity: its device and inode, where it has to be this one.

    Raises:
        OSError: it is not there any more.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(fd)
    if identity is not None and (found.st_dev, found.st_ino) != identity:
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return fd


def keep(run: int, found: Mapping[str, Any], patch: bytes) -> None:
    """Put the files of a session into a run's directory, unless they are there.

    Args:
        run: the directory, opened.
        found: what is known.
        patch: what was not committed; empty where there is no patch.

    Raises:
        OSError: they cannot be written.
    """
    before = _read(run, NAME)
    if before is not None:
        earlier = _decode(before)
        if earlier is not None and earlier.get("opened_at") == found.get("opened_at"):
            return
        _make_room(run, same=earlier is not None and _is_same(earlier, found) and (_read(run, DIFF) or b"") == patch)
    elif _exists(run, DIFF) or _exists(run, NAME):
        _make_room(run, same=False)
    if patch:  # first: who finds the other finds this
        _write(run, DIFF, patch)
    import json  # readers import this module for its names alone

    ordered = {name: found[name] for name in _ORDER if name in found}
    _write(run, NAME, json.dumps(ordered, indent=2, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def _make_room(run: int, *, same: bool) -> None:
    """Give the files of an earlier session other names, or remove them where they say the same."""
    number = 1
    while number <= MOST_EARLIER and (_exists(run, _numbered(NAME, number)) or _exists(run, _numbered(DIFF, number))):
        number += 1
    for name in (DIFF, NAME):  # the one that says that there is the other goes last
        with contextlib.suppress(FileNotFoundError):
            if same or number > MOST_EARLIER:
                _remove(run, name)
            else:
                os.rename(name, _numbered(name, number), src_dir_fd=run, dst_dir_fd=run)


def _numbered(name: str, number: int) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{number}.{ending}"


def _remove(run: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=run)
    except IsADirectoryError:  # somebody has put it there: it is moved aside and kept
        os.rename(name, f"{name}.{os.urandom(4).hex()}.aside", src_dir_fd=run, dst_dir_fd=run)


def _write(run: int, name: str, content: bytes) -> None:
    """Give a run a file. It gets its name when it is whole."""
    try:
        fd = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, permissions.PRIVATE_FILE, dir_fd=run)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return _write_and_rename(run, name, content)
    try:
        _put(fd, content)
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=run, follow_symlinks=True)
    except OSError as error:
        if error.errno not in _NOT_THERE or os.fstat(run).st_nlink == 0:
            raise
        _write_and_rename(run, name, content)
    finally:
        os.close(fd)


def _write_and_rename(run: int, name: str, content: bytes) -> None:
    """Do the same where a file cannot be without a name; who is killed here leaves one, which the next removes."""
    temporary = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=run)
    fd = os.open(
        temporary,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
        permissions.PRIVATE_FILE,
        dir_fd=run,
    )
    try:
        _put(fd, content)
        os.rename(temporary, name, src_dir_fd=run, dst_dir_fd=run)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=run)
        raise
    finally:
        os.close(fd)


def _put(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def _read(run: int, name: str) -> bytes | None:
    """Read a file of a run; None where there is none, or something else."""
    try:
        fd = os.open(name, _READ, dir_fd=run)
    except OSError:
        return None
    with contextlib.suppress(OSError), open(fd, "rb") as file:
        return file.read(_MOST_BYTES)
    return None


def _decode(content: bytes) -> dict[str, Any] | None:
    import json

    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in {*one, *other} if name not in _OF_A_MOMENT)


def _exists(run: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=run)
    except FileNotFoundError:
        return False
    return True
