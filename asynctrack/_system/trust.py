"""Trust: which settings in a `run.json` this user has made himself. A run directory from elsewhere must not send records, keys or files anywhere.

Settings that lead out of the run's directory are sealed with a key that lies in the user's state directory and never leaves it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

SEAL: Final = "seal"

_KEY_BYTES: Final = 32

# Where no key can be kept: a key of this process, which its worker gets through a file in shared memory that only its user can read.
_session: bytes | None = None


def seal(run_id: str, name: str, settings: Mapping[str, Any], *, here: bool = False) -> str:
    """Return the seal of a backend's settings in a run; empty where no key can be kept.

    Args:
        run_id: of the run.
        name: of the backend.
        settings: of the backend.
        here: seal also where no key can be kept; such a seal is valid as long as this process's worker runs.
    """
    key = _key(create=True) or (_made_here() if here else None)
    return _digest(key, run_id, name, settings) if key else ""


def is_sealed(run_id: str, name: str, settings: Mapping[str, Any], *, here: bool = False) -> bool:
    """Return True if this user's own seal is on these settings and for this run.

    Args:
        run_id: of the run.
        name: of the backend.
        settings: of the backend, with its seal.
        here: accept also a seal of the process that this one serves.
    """
    import hmac

    found = settings.get(SEAL)
    keys = filter(None, (_key(create=False), _session if here else None))
    return isinstance(found, str) and any(
        hmac.compare_digest(found, _digest(key, run_id, name, settings)) for key in keys
    )


def session_key() -> str:
    """Return the key that this process seals with where none can be kept, for its worker alone; empty where one is kept."""
    return "" if _key(create=True) else _made_here().hex()


def learn(key: str) -> None:
    """Accept the seals of the process that this worker serves."""
    global _session
    _session = bytes.fromhex(key) or None


def where_kept() -> Path | None:
    """Return the path of the key, which is made where it is missing; None where none can be kept."""
    return _path() if _key(create=True) else None


def _made_here() -> bytes:
    global _session
    _session = _session or os.urandom(_KEY_BYTES)
    return _session


def _digest(key: bytes, run_id: str, name: str, settings: Mapping[str, Any]) -> str:
    import hashlib
    import hmac

    plain = {field: value for field, value in settings.items() if field != SEAL}
    message = msgspec.json.encode([run_id, name, plain], order="sorted")
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def _key(*, create: bool) -> bytes | None:
    """Return the key; None where none can be kept, or where others could have read or written it. With `create` it is made where it is missing."""
    path = _path()
    if path is None:
        return None
    with contextlib.suppress(OSError):
        if create and not os.path.lexists(path):
            _make(path)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found, key = os.fstat(fd), os.read(fd, _KEY_BYTES + 1)
        finally:
            os.close(fd)
        if found.st_uid == os.geteuid() and not found.st_mode & 0o077 and len(key) == _KEY_BYTES:
            return key
    return None


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, os.urandom(_KEY_BYTES))
        os.fsync(fd)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(unfinished, path)
    finally:
        os.close(fd)
        os.unlink(unfinished)


def _path() -> Path | None:
    """Return where the key lies; None where the user has no home: files in the current folder may be another's."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "asynctrack" / "key" if os.path.isabs(state) else None
