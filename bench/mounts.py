"""File systems of a benchmark's own, that it can fill and freeze: seen by this process and its workers only, gone with them."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Says that this process has its own mounts already.
_MARK: Final = "BENCH_MOUNTS"
_DISK_BYTES: Final = 256 << 20
_CHUNK: Final = bytes(64 << 10)


def begin_anew(module: str) -> None:
    """Start this program again with mounts of its own, unless that has happened or is not allowed."""
    if not allowed() and _can_unshare():
        os.environ[_MARK] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", module, *sys.argv[1:]])


def allowed() -> bool:
    """Return True if this process may mount: what it mounts is its own."""
    return _MARK in os.environ


@contextlib.contextmanager
def memory(size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes in memory."""
    with _mount_point() as point:
        _do("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(point))
        try:
            yield point
        finally:
            _do("umount", "--lazy", str(point))


@contextlib.contextmanager
def disk() -> Iterator[Path | None]:
    """Mount an ext4 in a file of `TMPDIR`; yield None where no loop device is available."""
    with _mount_point() as point, tempfile.NamedTemporaryFile(prefix="asynctrack-bench-") as image:
        image.truncate(_DISK_BYTES)
        try:
            _do("mkfs.ext4", "-q", image.name)
            _do("mount", "-o", "loop", image.name, str(point))
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        try:
            yield point
        finally:
            _do("umount", "--lazy", str(point))


@contextlib.contextmanager
def full(point: Path) -> Iterator[None]:
    """Fill a file system to its last block; then give the room back."""
    ballast = point / "ballast"
    try:
        with open(ballast, "wb", buffering=0) as file:
            for chunk in (_CHUNK, _CHUNK[:4096], _CHUNK[:1]):
                _write_until_full(file.fileno(), chunk)
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def frozen(point: Path) -> Iterator[None]:
    """Let every write to a file system wait. It thaws also if this process is killed."""
    script = 'fsfreeze --freeze "$0" && echo frozen && cat; fsfreeze --unfreeze "$0"'
    with subprocess.Popen(
        ["sh", "-c", script, str(point)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as guard:
        assert guard.stdin is not None and guard.stdout is not None
        try:
            if not guard.stdout.readline():
                raise OSError(errno.EPERM, "it cannot be frozen", str(point))
            yield
        finally:
            guard.stdin.close()
            guard.wait()


def _can_unshare() -> bool:
    try:
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def _mount_point() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as directory:
        yield Path(directory)


def _write_until_full(fd: int, chunk: bytes) -> None:
    try:
        while True:
            os.write(fd, chunk)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
