"""Main: the worker process, `python -I -S .../worker/main.py HOST_DIRECTORY LOG`.

The drain runs before anything but the standard library is imported: the ring fills in about ten milliseconds, and the
imports of the deliveries take a hundred. So this file is a script that finds its package by its own place, and the package's
`__init__` is executed last.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from asynctrack.worker.drain import Drain
    from asynctrack.worker.host_lock import HostLock

# The run's directory may come from anyone: no link in it is followed, and no pipe waited for.
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Without runs for this long, the worker leaves; the next run starts another. ASYNCTRACK_IDLE_EXIT_S is for tests.
IDLE_EXIT_S = 5.0
# How long deliveries wait for a tight loop to end before they begin.
CALM_WAIT_S = 10.0
# How long the worker waits for its own threads in the end.
_STOP_WAIT_S = 5.0
# How long a worker waits for the one before it to be gone.
_LOCK_WAIT_S = 10.0


def main(host: str, log_path: str = os.devnull) -> int:
    """Serve a host directory until no caller is left; returns the exit status.

    Args:
        host: the directory.
        log_path: where the worker's log goes.
    """
    os.closerange(3, 4096)  # a library may have left descriptors open that the caller's end should close
    sys.setswitchinterval(0.0005)  # the drain must not wait 5 ms for the deliveries to let go of the interpreter
    _prepare_package()
    from asynctrack.queue.shm_paths import remove_host, ring_paths
    from asynctrack.worker.drain import Drain
    from asynctrack.worker.fsync import Sync
    from asynctrack.worker.host_lock import HostLock

    lock = _take_lock(host)
    _report_ready()
    if lock is None:
        return 0  # another worker serves this host
    _keep_log(log_path)
    host_lock = HostLock(lock)
    drain = Drain(host, host_lock=host_lock)
    drain.start()
    sync = Sync(drain)
    sync.start()
    _take_all_files()
    _exit_on_request(drain)
    host = _serve_until_idle(drain, host, host_lock)
    drain.stop()
    sync.stop()
    drain.join(_STOP_WAIT_S)
    if host_lock.is_at(host) and not ring_paths(host):
        remove_host(host)
    return 0


def _serve_until_idle(drain: Drain, host: str, host_lock: HostLock) -> str:
    """Serve until no run comes any more; returns the name that the host directory has by then.

    Leaving is a rename: from then on nobody can make a ring in the directory, so a forked child either finds a worker there or starts
    its own. No lock is held by anybody who could be stopped while holding it.
    """
    from asynctrack.queue.shm_paths import close_host

    while True:
        _serve(drain, host)
        # A run has come meanwhile: without this directory its caller's next would start another worker.
        if host_lock.is_at(host) and not drain.serves_none():
            time.sleep(0.1)  # the drain goes on; deliveries that failed at once are not tried without a pause
            continue
        if host_lock.is_at(host):  # else somebody has removed it, or another worker has made it again
            host = close_host(host)
            drain.move_to(host)
        if drain.serves_none() or not host_lock.is_at(host):
            return host


def _take_all_files() -> None:
    """Open as many files as may be: a caller's own limit says how many it has itself, and each of its runs takes several here."""
    import resource

    try:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        pass  # not on this system: it does with what it has


def _prepare_package() -> None:
    """Make `asynctrack.*` importable without executing `asynctrack/__init__.py`."""
    package = type(sys)("asynctrack")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["asynctrack"] = package


def _take_lock(host: str) -> int | None:
    """Take the lock that makes this the host's one worker; None when another has it and keeps it, or has left for good."""
    from asynctrack._system import locks
    from asynctrack.queue.shm_paths import LOCK_NAME

    deadline = time.monotonic() + _LOCK_WAIT_S
    while time.monotonic() < deadline:
        try:
            fd = locks.take(os.path.join(host, LOCK_NAME))
        except FileNotFoundError:
            return None  # the worker before this one has taken the directory with it
        if fd is not None:
            return fd if os.path.isdir(host) else None
        time.sleep(0.01)  # a lock of the kernel's can be waited for only without a deadline
    return None


def _report_ready() -> None:
    """Tell the caller, who hears what is said before: why there is no worker."""
    from asynctrack.queue.shm_paths import SERVES

    try:
        os.write(1, SERVES)
    except OSError:
        pass  # it has ended
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _keep_log(path: str) -> None:
    """Have what is said from here on in the run's log, if it can be written. On a thread: its disk may hang, and others of the caller's not."""
    import threading

    threading.Thread(target=_open_log, args=(path,), name="asynctrack-log", daemon=True).start()


def _open_log(path: str) -> None:
    try:
        log = os.open(path, _LOG_FLAGS, 0o600)
    except OSError:
        return  # a full disk, or a run that was removed, must not keep a worker from its work
    os.dup2(log, 2)
    os.close(log)


def _exit_on_request(drain: Drain) -> None:
    """Leave on SIGTERM: whoever ends the machine or the job ends the callers too, and they have to be served until then."""
    import signal

    signal.signal(signal.SIGTERM, lambda *_: drain.leave())


def _serve(drain: Drain, host: str) -> None:
    """Deliver until there is nothing left; whatever fails here, the drain goes on."""
    _wait_for_calm(drain)
    from asynctrack.worker import log_writer

    log_writer.to_thread()
    try:
        _import_the_rest(host)
        import gc

        from asynctrack._system import trust
        from asynctrack._system.entry import read_handshake
        from asynctrack.worker.orphan_rings import adopt
        from asynctrack.worker.service import Service

        trust.learn(read_handshake(host).get("key", ""))
        adopt(host)
        # A full collection holds the interpreter for 5 to 12 ms, in which a tight loop fills a quarter of its ring.
        gc.freeze()
        gc.set_threshold(100_000, 50, 1000)
        service = Service(drain)
        service.start()
        service.wait(idle_exit_s=_idle_exit_s())
        service.stop(_STOP_WAIT_S)
    except Exception as error:
        log_writer.warn("deliveries have failed; the journal goes on", error)
        _only_journal(drain)


def _only_journal(drain: Drain) -> None:
    """Serve without deliveries until the callers have ended; `asynctrack sync` delivers."""
    while drain.runs:
        for run in list(drain.runs.values()):
            if run.status is not None:
                drain.finish(run, done=False)
        time.sleep(0.1)  # nobody notifies here: what does has failed


def _idle_exit_s() -> float:
    try:
        return float(os.environ["ASYNCTRACK_IDLE_EXIT_S"])
    except (KeyError, ValueError):
        return IDLE_EXIT_S


def _wait_for_calm(drain: Drain) -> None:
    """Wait for a tight loop to end: imports hold the interpreter for longer than it needs to fill its ring.

    It polls: the drain has no time to tell of the end of pressure.
    """
    deadline = time.monotonic() + CALM_WAIT_S
    calm = 0
    while calm < 5 and time.monotonic() < deadline and not any(run.wanted() for run in list(drain.runs.values())):
        time.sleep(0.01)
        calm = 0 if drain.pressed else calm + 1


def _import_the_rest(host: str) -> None:
    import importlib.util

    from asynctrack._system.entry import find_modules

    find_modules(host)
    package = sys.modules["asynctrack"]
    if not hasattr(package, "__version__"):
        location = os.path.join(package.__path__[0], "__init__.py")
        spec = importlib.util.spec_from_file_location(
            "asynctrack", location, submodule_search_locations=[*package.__path__]
        )
        assert spec is not None
        assert spec.loader is not None
        package.__spec__, package.__file__ = spec, location
        spec.loader.exec_module(package)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    from asynctrack.worker import log_writer

    log_writer.flush(1.0)
    os._exit(status)  # a sink that hangs on a thread must not hold the process
