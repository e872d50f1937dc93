"""Spawn: starts a process that is nobody's child, in a session and process group of its own. Standard library only.

It is started through a shell that exits at once: a user's `os.wait()` must not find it, nor Ctrl-C stop it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posix  # the replacements of gevent and eventlet in `os` wait for a hub that may not run
import signal
import sys
from collections.abc import Sequence

# A shell gives a background process an empty standard input unless it is redirected.
_START = '"$@" <&3 3<&- &'
_SHELL = "/bin/sh"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The run's directory may come from anyone: no link in it is followed, and no pipe waited for.
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK


def can_spawn() -> bool:
    """Return True if there is an interpreter and a shell to start a process with, and files that it could run."""
    return why_not() is None


def why_not() -> str | None:
    """Return what keeps this process from starting another, in words; None where nothing is known to."""
    if interpreter() is None:
        return f"no Python interpreter is known here: sys.executable is {sys.executable!r:.200}"
    if not os.access(_SHELL, os.X_OK):
        return f"there is no {_SHELL}"
    if not os.path.isfile(__file__):
        return f"the package lies in an archive: {_PACKAGE:.200}"
    return None


def interpreter() -> str | None:
    """Return the path of a Python of this version; None where there is none.

    That is `sys.executable`, unless it is no interpreter, as in a program that embeds one.
    """
    if getattr(sys, "frozen", False):
        return None
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    candidates = [sys.executable, getattr(sys, "_base_executable", ""), os.path.join(sys.base_exec_prefix, "bin", name)]
    return next((path for path in candidates if path and _is_interpreter(path)), None)


def _is_interpreter(path: str) -> bool:
    return "py" in os.path.basename(path).lower() and os.path.isfile(path) and os.access(path, os.X_OK)


def spawn(
    script: str,
    arguments: Sequence[str],
    *,
    log_path: str | None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> int:
    """Start an isolated Python that runs `script`, a path below this package.

    Args:
        script: the path.
        arguments: of the script.
        log_path: the file for its standard error, if that can be written; None for `stderr`.
        stdin: a descriptor to read from; None for the null device.
        stdout: a descriptor to write to; None for the null device.
        stderr: a descriptor to write to; None for this process's own standard error.

    Returns:
        Its process group, which it leads with all that it starts.

    Raises:
        OSError: it cannot be started.
    """
    python = interpreter()
    if python is None:
        raise FileNotFoundError(errno.ENOENT, "no Python interpreter is known here", sys.executable)
    path = os.path.join(_PACKAGE, *script.split("/"))
    null = (os.POSIX_SPAWN_OPEN, 3, os.devnull, os.O_RDWR, 0)
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        null if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 3),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0 if stdout is None else stdout, 1),
    ]
    if log_path is not None:
        actions.append((os.POSIX_SPAWN_OPEN, 2, _log_file(log_path), _LOG_FLAGS, 0o600))
    elif stderr is not None:
        actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
    group = posix.posix_spawn(
        _SHELL,
        ["sh", "-c", _START, "sh", python, "-I", "-S", path, *arguments],
        os.environ,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP],
    )
    with contextlib.suppress(ChildProcessError):  # the user's own os.wait() may have been quicker
        posix.waitpid(group, 0)
    return group


def _log_file(path: str) -> str:
    """Return the path, or that of the null device where it cannot be written: a full disk, or a run that was removed, must not keep a process from starting.

    A link is never followed.
    """
    try:
        os.close(os.open(path, _LOG_FLAGS | os.O_CLOEXEC, 0o600))
    except OSError:
        return os.devnull
    return path
