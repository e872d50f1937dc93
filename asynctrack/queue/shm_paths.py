"""Paths in shared memory: one directory per calling process, in shared memory, that only its user can enter.

`/dev/shm/asynctrack-UID/HOST/` holds the rings of one calling process and of its forked children, the pipe that wakes
their worker, and the lock that says a worker is there. A worker that leaves first renames the directory: from then on
nobody can make a ring in it, so a forked child either finds its worker there or starts its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posix  # eventlet's `os.write` waits where a pipe is full
import stat

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterator


RING_SUFFIX = ".ring"
WAKE_NAME = "wake"
LOCK_NAME = "worker.lock"
HANDSHAKE_NAME = "host.json"
CLOSED_SUFFIX = ".closed"
# What a worker says to its caller when it serves.
SERVES = b"\0"

# In a tight loop it lasts for 40 ms in which the worker gets no core, where 4 MiB last for 10: of five million records those dropped 285 to 9,176.
DEFAULT_RING_BYTES = 16 << 20
SMALLEST_RING_BYTES = 64 << 10
# Of so many open rings each has its full size; the next have less, down to what a long record may count on. A process with a thousand runs has one loop.
_WIDE_RINGS = 8
_NARROW_RING_BYTES = 4 << 20
# A ring takes at most this part of what is free, so that a hundred runs fit the 64 MB that containers have.
_SHARE_OF_FREE = 16


def shared_roots() -> Iterator[str]:
    """List the directories that may hold rings, best first: memory, then the temporary directory."""
    chosen = os.path.expanduser(os.environ.get("ASYNCTRACK_SHM", ""))
    if chosen or _usable("/dev/shm"):
        yield chosen or "/dev/shm"
    if not chosen and _usable(temporary := _temporary()):
        yield temporary


def user_root(shared: str, *, create: bool = False) -> str | None:
    """Return this user's own directory under `shared`, or None where it is missing or not safely theirs.

    A name squatted by another user, a symlink, or a directory that others can enter is left alone.
    """
    path = root_name(shared)
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return path if _is_private(path) else None


def user_roots(shared: str) -> list[str]:
    """List all directories of this user's own under `shared`: where another user has taken the name, there is one with a longer name."""
    name = os.path.basename(root_name(shared))
    try:
        names = sorted(found for found in os.listdir(shared) if found == name or found.startswith(f"{name}-"))
    except OSError:
        names = [name]
    return [path for found in names if _is_private(path := os.path.join(shared, found))]


def root_name(shared: str) -> str:
    """Return the path of this user's directory under `shared`, whoever has it."""
    return os.path.join(shared, f"asynctrack-{os.geteuid()}")


def _is_private(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def make_host_directory(shared: str) -> str:
    """Make a fresh directory for the rings of this process, with its wake pipe.

    Raises:
        OSError: there is no room, or no right to write there; nothing is left.
    """
    for last_try in (False, False, True):  # a worker that leaves may remove the empty root under us
        root = user_root(shared, create=True)
        if root is None:  # another user has taken the name; any other name is as safe
            root = next(iter(user_roots(shared)), None) or _mkdtemp(shared, f"{os.path.basename(root_name(shared))}-")
        try:
            path = _mkdtemp(root, f"{os.getpid()}-")
            break
        except FileNotFoundError:
            if last_try:
                raise
    try:
        os.mkfifo(os.path.join(path, WAKE_NAME), 0o600)
    except OSError:
        remove_host(path)
        raise
    return path


def host_directories() -> Iterator[str]:
    """List every host directory of this user on this machine, those of ended processes too."""
    for shared in shared_roots():
        for root in user_roots(shared):
            try:
                with os.scandir(root) as entries:
                    found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                continue  # the last worker has just left, and taken it along
            yield from found


def host_marks() -> list[tuple[str, int]]:
    """Return every host directory, and when a ring was made or removed there last."""
    found = []
    for path in host_directories():
        with contextlib.suppress(OSError):
            found.append((path, os.stat(path).st_mtime_ns))
    return found


def ring_paths(host: str) -> list[str]:
    """List the rings in a host directory; empty when it is gone."""
    try:
        with os.scandir(host) as entries:
            return sorted(entry.path for entry in entries if entry.name.endswith(RING_SUFFIX))
    except OSError:
        return []


def fresh_ring_path(host: str) -> str:
    """Return a path for the next ring of a host. Names sort by age, whatever the clock says: a run's earlier session is drained first."""
    last = [os.path.basename(path) for path in ring_paths(host)[-1:]]
    number = 1 + max((int(name.partition("-")[0], 16) for name in last), default=0)
    return os.path.join(host, f"{number:016x}-{os.urandom(8).hex()}{RING_SUFFIX}")


def has_room(shared: str) -> bool:
    """Tell whether there is room for a small ring, as far as the file system tells."""
    try:
        space = os.statvfs(shared)
    except OSError:
        return False
    return not space.f_blocks or space.f_bavail * space.f_frsize >= 2 * SMALLEST_RING_BYTES


def ring_bytes(host: str) -> int:
    """Say how big the next ring of this host should be: 16 MiB, 8 beside 8 others, 4 beside 16; less where less than sixteen times as much memory is free."""
    size, others = DEFAULT_RING_BYTES, len(ring_paths(host))
    while size > _NARROW_RING_BYTES and others >= _WIDE_RINGS:
        size, others = size // 2, others // 2
    free = _SHARE_OF_FREE * size
    with contextlib.suppress(OSError):
        space = os.statvfs(host)
        if space.f_blocks:  # a tmpfs without a limit says 0
            free = space.f_bavail * space.f_frsize
    while size > SMALLEST_RING_BYTES and size > free // _SHARE_OF_FREE:
        size //= 2
    return size


def move_ring(path: str, into: str) -> None:
    """Move the ring of an ended process to another host, which may be in another file system.

    Raises:
        OSError: it could not be moved; it is where it was.
    """
    target = fresh_ring_path(into)
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(path, target)
        os.unlink(path)


def hand_over(path: str, into: str) -> None:
    """Move the ring of a process that lives to another host of the same file system. It keeps its name, by which its process knows it.

    Raises:
        OSError: it could not be moved; it is where it was.
    """
    os.rename(path, os.path.join(into, os.path.basename(path)))


def wake_host(host: str) -> None:
    """Wake the worker of a host, if it sleeps. Never waits.

    It fails where no worker reads the pipe yet, where the pipe is full (the worker is awake then), and where an audit hook forbids it.
    """
    # The pipe is not kept open: a child that becomes a daemon closes all files, and its log would get the byte.
    with contextlib.suppress(Exception):
        fd = os.open(os.path.join(host, WAKE_NAME), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            posix.write(fd, b"!")
        finally:
            os.close(fd)


def make_host_again(host: str) -> None:
    """Make a host directory again that somebody has removed while it is in use, with its wake pipe. More than one may try.

    Raises:
        OSError: there is no room, or no right to write there.
    """
    for path in (os.path.dirname(host), host):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        if not _is_private(path):
            raise PermissionError(errno.EPERM, "it is not this user's own directory", path)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(os.path.join(host, WAKE_NAME), 0o600)


def is_closed(host: str) -> bool:
    """Tell whether its worker has closed a host directory, and has not yet left."""
    return os.path.isdir(host + CLOSED_SUFFIX)


def close_host(host: str) -> str:
    """Rename a host directory so that no ring can be made in it any more, and return its name from then on."""
    if host.endswith(CLOSED_SUFFIX):
        return host
    closed = host + CLOSED_SUFFIX
    os.rename(host, closed)
    return closed


def remove_host(host: str) -> None:
    """Remove a host directory, and the user's root if that was the last one."""
    import shutil

    shutil.rmtree(host, ignore_errors=True)
    try:
        os.rmdir(os.path.dirname(host))
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EPERM, errno.EACCES):
            raise


def _copy(path: str, target: str) -> None:
    import shutil

    unfinished = f"{target}.new"
    try:
        with open(path, "rb") as source, open(unfinished, "xb") as copy:
            if hasattr(os, "posix_fallocate"):  # as in `Ring.create`
                os.posix_fallocate(copy.fileno(), 0, os.fstat(source.fileno()).st_size)
            shutil.copyfileobj(source, copy)
        os.rename(unfinished, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def _usable(path: str) -> bool:
    return os.path.isdir(path) and os.access(path, os.W_OK)


def _mkdtemp(parent: str, prefix: str) -> str:
    path = os.path.join(parent, prefix + os.urandom(8).hex())
    os.mkdir(path, 0o700)
    return path


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()
