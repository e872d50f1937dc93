"""A disk that hangs or fails when it is told to: a FUSE file system in a process of its own, which passes on to a directory.

What hangs cannot be interrupted, as on a network's disk whose server is away: not even SIGKILL ends who waits for it.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import errno
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

Kind = Literal["open", "read", "write", "sync", "stat", "names"]
# What asks for the time that the disk takes: `names` are those of files and folders (made, renamed, removed).
KINDS: tuple[Kind, ...] = ("open", "read", "write", "sync", "stat", "names")
# How long the file system may take to answer, or to be mounted. Arbitrary: it takes 0.2 s.
_PATIENCE_S = 20.0
# How an answer begins, among other lines of the file system's process.
_ANSWER = "answer: "
# What has hung for so long fails: a test that waits for its own disk can be ended by nothing else, its time limit included.
LONGEST_HANG_S = 40.0


class HangingDisk:
    """A mounted disk.

    Attributes:
        path: where it is mounted.
        backing: the directory that has its files; what looks there never hangs.
    """

    def __init__(self, path: Path, backing: Path) -> None:
        self.path = path
        self.backing = backing
        library = {"FUSE_LIBRARY_NAME": "fuse3"} if ctypes.util.find_library("fuse3") else {}
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(backing), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, **library},
            text=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._words: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def hang(self, *kinds: Kind, under: str = "") -> None:
        """From here on operations of these kinds (all of them where none is named) on paths that begin with `under` hang."""
        self._tell({"hang": kinds or KINDS, "under": under})

    def fail(self, number: int, *kinds: Kind, under: str = "") -> None:
        """From here on they fail with this errno."""
        self._tell({"fail": number, "kinds": kinds or KINDS, "under": under})

    def go_on(self) -> None:
        """The disk is well again, and who waits for it goes on."""
        self._tell({"go_on": True})

    def waiting(self) -> int:
        """How many operations hang now."""
        return int(self._tell({"waiting": True}))

    def mounted(self) -> bool:
        """Whether it has been mounted; False after its process has ended, or has not managed it in good time."""
        deadline = time.monotonic() + _PATIENCE_S
        while self._server.poll() is None and time.monotonic() < deadline:
            if is_mounted(self.path):
                return True
            time.sleep(0.01)
        return False

    def last_words(self) -> str:
        """What its process has said that was no answer."""
        self._end()
        return " ".join(self._words)

    def close(self) -> None:
        """Unmount it. The end of its process lets go of all who wait: they get an error."""
        self._end()
        unmount(self.path)

    def _end(self) -> None:
        self._server.kill()
        self._server.wait()
        self._listener.join()
        for pipe in filter(None, (self._server.stdin, self._server.stdout)):
            pipe.close()

    def _tell(self, order: dict[str, Any]) -> str:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return self._answers.get(timeout=_PATIENCE_S)

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            if line.startswith(_ANSWER):
                self._answers.put(line.removeprefix(_ANSWER).strip())
            else:  # libfuse has words of its own
                self._words.append(line.strip())
        self._answers.put("")


def unmount(path: Path) -> None:
    """Unmount what is mounted there, whoever still uses it."""
    for command in (["fusermount3", "-u", "-z"], ["fusermount", "-u", "-z"], ["umount", "-l"]):
        if not is_mounted(path):
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([*command, str(path)], capture_output=True, timeout=_PATIENCE_S, check=False)
    assert not is_mounted(path), f"{path} cannot be unmounted"


def is_mounted(path: Path) -> bool:
    """As the kernel has it: a look at the path itself could hang."""
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return any(line.split(" ")[4] == str(path) for line in mounts)


@contextlib.contextmanager
def mounted_disk(where: Path) -> Iterator[HangingDisk]:
    """A disk mounted below `where`; skips the test, and says why, where that cannot be."""
    pytest.importorskip("mfusepy", reason="mfusepy is not here, or no libfuse (the package fuse3)", exc_type=Exception)
    if not os.path.exists("/dev/fuse"):
        pytest.skip("/dev/fuse is not here: no FUSE file system can be mounted")
    path, backing = where / "disk", where / "backing"
    path.mkdir()
    backing.mkdir()
    disk = HangingDisk(path.resolve(), backing.resolve())
    try:
        if not disk.mounted():
            pytest.skip(f"a FUSE file system cannot be mounted here: {disk.last_words()}")
        yield disk
    finally:
        disk.close()


@pytest.fixture
def hanging_disk(tmp_path: Path) -> Iterator[HangingDisk]:
    """A disk that hangs when it is told to."""
    with mounted_disk(tmp_path) as disk:
        yield disk


class _Faults:
    """What the disk does to whom, and who waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._faults: list[tuple[str, str, int]] = []
        self._waiting = 0

    def meet(self, kind: str, path: str) -> None:
        """Hang, or raise, where that was asked for."""
        until = time.monotonic() + LONGEST_HANG_S
        with self._changed:
            while (number := self._fault(kind, path)) == 0:
                self._waiting += 1
                if not self._changed.wait(until - time.monotonic()):
                    number = errno.EIO
                self._waiting -= 1
                if number:
                    break
        if number is not None:
            raise OSError(number, os.strerror(number))

    def _fault(self, kind: str, path: str) -> int | None:
        """The errno to fail with, 0 for none yet; None where all is well."""
        relative = path.lstrip("/")
        return next((n for k, under, n in self._faults if k == kind and relative.startswith(under)), None)

    def obey(self, order: dict[str, Any]) -> str:
        with self._changed:
            if order.get("go_on"):
                self._faults.clear()
                self._changed.notify_all()
            kinds = order.get("hang", order.get("kinds", ()))
            self._faults = [(kind, order["under"], order.get("fail", 0)) for kind in kinds] + self._faults
            return str(self._waiting)


def _pass_on(faults: _Faults, root: str) -> Any:
    """The operations of FUSE, each on the same path below `root`."""
    import mfusepy

    def real(path: str) -> str:
        return root + path

    def meeting(kind: Kind, work: Callable[..., Any]) -> Callable[..., Any]:
        def operation(self: object, path: str, *arguments: Any) -> Any:
            faults.meet(kind, path)
            return work(path, *arguments)

        return operation

    def stat(path: str, fd: int | None = None) -> dict[str, Any]:
        found = os.lstat(real(path)) if fd is None else os.fstat(fd)
        names = ("mode", "ino", "dev", "nlink", "uid", "gid", "size", "blocks")
        values = {f"st_{name}": getattr(found, f"st_{name}") for name in names}
        return values | {f"st_{name}time": getattr(found, f"st_{name}time_ns") for name in "amc"}

    def open_file(path: str, flags: int) -> int:
        return os.open(real(path), flags & ~os.O_APPEND & ~os.O_NOFOLLOW)  # the kernel tells where to write

    def truncate(path: str, length: int, fd: int | None = None) -> None:
        os.truncate(real(path) if fd is None else fd, length)

    def write(path: str, data: bytes, offset: int, fd: int) -> int:
        return os.pwrite(fd, data, offset)

    def space(path: str) -> dict[str, int]:
        found = os.statvfs(real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    works: dict[str, tuple[Kind, Callable[..., Any]]] = {
        "getattr": ("stat", stat),
        "statfs": ("stat", space),
        "readdir": ("read", lambda path, fd: [".", "..", *os.listdir(real(path))]),
        "readlink": ("read", lambda path: os.readlink(real(path))),
        "open": ("open", open_file),
        "create": ("open", lambda path, mode: os.open(real(path), os.O_RDWR | os.O_CREAT, mode)),
        "read": ("read", lambda path, size, offset, fd: os.pread(fd, size, offset)),
        "write": ("write", write),
        "truncate": ("write", truncate),
        "fsync": ("sync", lambda path, data_only, fd: os.fsync(fd)),
        "fsyncdir": ("sync", lambda path, data_only, fd: 0),
        "mkdir": ("names", lambda path, mode: os.mkdir(real(path), mode)),
        "rmdir": ("names", lambda path: os.rmdir(real(path))),
        "unlink": ("names", lambda path: os.unlink(real(path))),
        "rename": ("names", lambda old, new: os.rename(real(old), real(new))),
        "link": ("names", lambda new, old: os.link(real(old), real(new), follow_symlinks=False)),
        "symlink": ("names", lambda new, target: os.symlink(target, real(new))),
        "mknod": ("names", lambda path, mode, device: os.mknod(real(path), mode, device)),
        "chmod": ("names", lambda path, mode: os.chmod(real(path), mode)),
        "chown": ("names", lambda path, uid, gid: os.chown(real(path), uid, gid, follow_symlinks=False)),
        "utimens": ("names", lambda path, times=None: os.utime(real(path), ns=times)),
    }
    operations = {name: meeting(kind, work) for name, (kind, work) in works.items()}

    def release(self: object, path: str, fd: int) -> int:
        os.close(fd)
        return 0

    members = {**operations, "release": release, "use_ns": True}
    return type("PassOn", (mfusepy.Operations,), members)()


def _serve(backing: str, mount: str) -> None:
    import mfusepy

    faults = _Faults()

    def obey() -> None:
        for line in sys.stdin:
            print(f"{_ANSWER}{faults.obey(json.loads(line))}", flush=True)
        unmount(Path(mount))  # who mounted it has died
        os._exit(0)

    threading.Thread(target=obey, daemon=True).start()
    options: dict[str, Any] = {"foreground": True, "hard_remove": True, "attr_timeout": 0, "entry_timeout": 0}
    if mfusepy.fuse_version_major >= 3:
        options["max_threads"] = 200  # ten of them wait otherwise, and then nobody is served
    mfusepy.FUSE(_pass_on(faults, backing), mount, direct_io=True, negative_timeout=0, **options)


if __name__ == "__main__":
    try:
        _serve(*sys.argv[1:])
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(getattr(error, "errno", None) or errno.EIO)
