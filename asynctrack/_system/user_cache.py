"""User cache: files that can be made anew, in the user's cache directory, with one cap for all of them. Runs anywhere.

Nothing here raises for what a disk or another process does: what cannot be read is not there, and what cannot be written is not kept. A file appears at
once and whole, and has a checksum; several processes may use the cache. When it is fuller than the cap, what was used least recently goes first.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from asynctrack._system import permissions

# Of all files together, by what they take of the disk.
CAP_BYTES: Final = 2 << 30

# When the cache is fuller than the cap, it is emptied to this part of it, so that not each write looks at all files. Arbitrary.
_LEFT: Final = 0.9
# How much a process writes before it looks again how full the cache is. Arbitrary.
_LOOKS_EACH_BYTES: Final = 64 << 20
# An unfinished file that is older was left by a process that has died.
_UNFINISHED_S: Final = 3600
# What is mapped and larger is not checked whole: 60 ms.
_CHECKED_BYTES: Final = 64 << 20
# A file that was used less than this ago is not marked as used again.
_MARKED_S: Final = 60

_MAGIC: Final = b"ATCACHE1"
_HEADER: Final = Struct("<8sII")  # the magic, the checksum of the content and the length of the key, which follows
_UNFINISHED: Final = ".new"


class Contents(NamedTuple):
    """Says how much the cache has of one kind.

    Attributes:
        files: how many.
        bytes: what they take of the disk.
    """

    files: int
    bytes: int


class _File(NamedTuple):
    path: str
    kind: str
    bytes: int
    used_at: float


_written = _LOOKS_EACH_BYTES  # by this process since it has looked how full the cache is


def directory() -> Path | None:
    """Return where the cache is, as the XDG specification has it; None where the user has no home."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home, "asynctrack") if os.path.isabs(home) else None


def read(kind: str, key: str) -> bytes | None:
    """Return what was kept under a key; None where there is nothing, or nothing whole.

    Args:
        kind: what it is: a name for a directory.
        key: any text.
    """
    path = _path(kind, key)
    if path is None:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            content = file.read() if status.st_uid == os.geteuid() else b""
    except OSError:
        return None
    _mark_as_used(path, status.st_mtime)
    return _unpacked(content, key)


def has(kind: str, key: str) -> bool:
    """Return whether something may be kept under a key, which may turn out not to be whole."""
    path = _path(kind, key)
    return path is not None and os.path.exists(path)


def mapped(kind: str, key: str) -> memoryview | None:
    """Return what was kept under a key, without reading it all; None where there is nothing, or nothing that can be mapped.

    Up to 64 MiB are checked. Of more, the caller has to check what it must rely on; a file that is replaced meanwhile stays as it is.

    Args:
        kind: as for `read`.
        key: as for `read`.
    """
    path = _path(kind, key)
    if path is None:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb"):
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or not status.st_size:
                return None
            content = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        return None
    _mark_as_used(path, status.st_mtime)
    if len(content) < _HEADER.size:
        return None
    magic, checksum, length = _HEADER.unpack_from(content)
    packed = content[_HEADER.size + length :]
    whole = magic == _MAGIC and content[_HEADER.size : _HEADER.size + length] == key.encode("utf-8", "surrogateescape")
    return packed if whole and (len(packed) > _CHECKED_BYTES or zlib.crc32(packed) == checksum) else None


def write(kind: str, key: str, content: bytes | bytearray | memoryview) -> bool:
    """Keep something under a key; return whether it is kept.

    Args:
        kind: as for `read`.
        key: as for `read`.
        content: what is to be kept. It must not be secret, and must not be the only copy.
    """
    path = _path(kind, key)
    if path is None or len(content) > CAP_BYTES * _LEFT:
        return False
    unfinished = f"{path}.{os.getpid()}.{os.urandom(4).hex()}{_UNFINISHED}"
    try:
        if not _make_directories(os.path.dirname(path)):
            return False
        _write_all(unfinished, _packed(content, key))
        os.replace(unfinished, path)
    except OSError:  # a full disk, one that is only read, a quota
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        return False
    _look_how_full(len(content))
    return True


def forget(kind: str, key: str) -> None:
    """Keep nothing under a key."""
    path = _path(kind, key)
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def contents() -> dict[str, Contents]:
    """Return what the cache has by kind, unfinished files included."""
    found: dict[str, Contents] = {}
    for file in _files():
        before = found.get(file.kind, Contents(0, 0))
        found[file.kind] = Contents(before.files + 1, before.bytes + file.bytes)
    return dict(sorted(found.items()))


def clear() -> Contents:
    """Remove all files of the cache; return what was removed."""
    count = removed = 0
    for file in _files():
        with contextlib.suppress(OSError):
            os.unlink(file.path)
            count, removed = count + 1, removed + file.bytes
    root = directory()
    with contextlib.suppress(OSError):
        for below in [] if root is None else list(os.scandir(root)):
            os.rmdir(below.path)
    return Contents(count, removed)


def trim(cap_bytes: int = CAP_BYTES) -> None:
    """Remove what was used least recently, if the cache is fuller than a cap; and what processes that have died left unfinished."""
    files = sorted(_files(), key=lambda file: file.used_at)
    full = sum(file.bytes for file in files)
    wanted = full if full <= cap_bytes else cap_bytes * _LEFT
    now = time.time()
    for file in files:
        left_unfinished = file.path.endswith(_UNFINISHED) and now - file.used_at > _UNFINISHED_S
        if full <= wanted and not left_unfinished:
            continue
        with contextlib.suppress(OSError):
            os.unlink(file.path)
        full -= file.bytes


def _look_how_full(written: int) -> None:
    """Keep the cache below its cap: at a process's first write, and each time that it has written much."""
    global _written
    _written += written
    if _written >= _LOOKS_EACH_BYTES:
        _written = 0
        trim()


def _path(kind: str, key: str) -> str | None:
    root = directory()
    return (
        None
        if root is None
        else os.path.join(root, kind, blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest())
    )


def _make_directories(path: str) -> bool:
    """Make the directory of a kind and those above it; return whether it is this user's alone, so that nobody else puts anything there."""
    root = os.path.dirname(path)
    os.makedirs(os.path.dirname(root), permissions.PRIVATE_DIRECTORY, exist_ok=True)
    for each in (root, path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(each, permissions.PRIVATE_DIRECTORY)
    status = os.stat(root, follow_symlinks=False)
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _write_all(path: str, parts: tuple[bytes, ...]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, permissions.PRIVATE_FILE)
    with open(fd, "wb") as file:
        file.writelines(parts)


def _mark_as_used(path: str, marked_at: float) -> None:
    now = time.time()
    if not 0 <= now - marked_at < _MARKED_S:
        with contextlib.suppress(OSError):
            os.utime(path, (now, now))


def _packed(content: bytes | bytearray | memoryview, key: str) -> tuple[bytes, ...]:
    name = key.encode("utf-8", "surrogateescape")
    return _HEADER.pack(_MAGIC, zlib.crc32(content), len(name)), name, content  # type: ignore[return-value]  # a file takes each of them


def _unpacked(content: bytes, key: str) -> bytes | None:
    """Return what was packed; None where it is damaged, of another version or of another key with the same hash."""
    if len(content) < _HEADER.size:
        return None
    magic, checksum, length = _HEADER.unpack_from(content)
    name, packed = content[_HEADER.size : _HEADER.size + length], content[_HEADER.size + length :]
    whole = magic == _MAGIC and name == key.encode("utf-8", "surrogateescape") and zlib.crc32(packed) == checksum
    return packed if whole else None


def _files() -> Iterator[_File]:
    root = directory()
    for kind in _entries(root):
        for entry in _entries(kind.path):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.is_file(follow_symlinks=False):
                    yield _File(entry.path, kind.name, max(status.st_size, status.st_blocks * 512), status.st_mtime)


def _entries(path: str | os.PathLike[str] | None) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) if path is not None else contextlib.nullcontext(()) as entries:
            return list(entries)
    except OSError:
        return []
