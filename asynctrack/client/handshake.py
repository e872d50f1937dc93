"""Handshake: what a worker has to know of the process that starts it, in a file beside the rings. Runs in the caller."""

from __future__ import annotations

import os
import sys

import msgspec

from asynctrack._system import trust
from asynctrack.queue.shm_paths import HANDSHAKE_NAME


def write_handshake(directory: str) -> None:
    """Tell the worker what it needs to import what this process can, and to know what it has sealed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handshake = _as_json({"sys_path": _module_paths(), "argv": sys.argv, "key": trust.session_key()})
    with open(os.open(os.path.join(directory, HANDSHAKE_NAME), flags, 0o600), "wb") as file:
        file.write(handshake)


def _as_json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError):  # a path that is not UTF-8
        import json

        return json.dumps(value).encode()


def _module_paths() -> list[str]:
    """Return where this process finds modules; the script's own folder last, since a file that lies there by chance is no library."""
    script = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    return sorted(filter(None, sys.path), key=lambda path: path == os.path.dirname(script))


def hold_streams() -> None:
    """Open nothing of ours where a standard stream is closed: it would take what C code writes to that.

    A ring's descriptor became one of them, and a byte that C code wrote to "standard error" overwrote its header.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # It gets the lowest free number, which is the closed stream's.
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
