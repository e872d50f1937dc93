"""W&B's library and its process `wandb-core`: import it, start it, watch it, kill it. Runs where the sinks do.

There is one `wandb-core` in this process. It is in a session of its own, and sends the rows that runs log. When it may
have died or hangs it is killed, and every run that was open in it is opened again. So two of them never send rows of
the same run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

from asynctrack._system import descendants
from asynctrack.backends.base import ActionRequired, Retry, Signal

MEND_KEY: Final = "run `wandb login`, or set WANDB_API_KEY in the environment"

# Characters that are kept of W&B's description of an error. Arbitrary.
_MOST_WORDS: Final = 300
# An API key, or a word that may be one.
_KEY: Final = re.compile(r"[\w-]{40,}")
_STATUS: Final = re.compile(r"\berror (\d{3})\b", re.IGNORECASE)
_DENIED: Final = re.compile(r"permission denied|forbidden|not found", re.IGNORECASE)

_lock = threading.RLock()
_generation = 0
_pids: list[int] = []
_hooks: list[Any] = []
_in_hooks = 0


def library() -> Any:
    """Import the module `wandb`.

    Raises:
        ActionRequired: it is not installed.
    """
    with _lock:
        if "wandb" not in sys.modules:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb reads it once, on import
            os.environ.pop(
                "WANDB_SERVICE", None
            )  # it would lead to the `wandb-core` of the process that started this one
        try:
            return importlib.import_module("wandb")
        except ImportError as error:
            raise ActionRequired(
                f"it needs wandb, which is not installed here: pip install 'asynctrack[wandb]' ({error})"
            ) from error


def start() -> int:
    """Start a `wandb-core` where none runs.

    Returns:
        Its number; each new one has another.
    """
    global _pids
    with _lock:
        if _pids and not is_alive(_generation):
            kill()
        if not _pids:
            with descendants.marked():
                connection = importlib.import_module("wandb.sdk.wandb_setup").singleton().ensure_service()
            _pids = descendants.own()
            _quieten(connection)
        return _generation


def find_key(base_url: str | None) -> None:
    """Make the library find its key; otherwise `init` would ask for one on a terminal.

    Raises:
        ActionRequired: there is none.
    """
    settings = importlib.import_module("wandb.sdk.wandb_setup").singleton().settings
    auth = importlib.import_module("wandb.sdk.lib.wbauth")
    if auth.authenticate_session(host=base_url or settings.base_url, source="asynctrack", prompt=False) is None:
        raise ActionRequired(f"W&B has no key here: {MEND_KEY}")


def is_alive(number: int) -> bool:
    """Return whether the `wandb-core` of this number is alive."""
    with _lock:
        return number == _generation and all(_lives(pid) for pid in _pids)


def kill() -> None:
    """Kill the `wandb-core`, if it is ours; the next `start` starts another."""
    global _pids, _generation
    with _lock:
        pids, _pids = {*_pids, *descendants.own()} if _pids else set(), []  # with the processes that it has started
        _generation += 1
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if pids:
            _let_go()


@contextlib.contextmanager
def hooks_kept() -> Iterator[None]:
    """Undo W&B's changes to `sys.excepthook` and `sys.exit` in this block."""
    global _hooks, _in_hooks
    with _lock:
        if not _in_hooks:
            _hooks = [sys.excepthook, sys.exit]
        _in_hooks += 1
    try:
        yield
    finally:
        with _lock:
            _in_hooks -= 1
            if not _in_hooks:
                sys.excepthook, sys.exit = _hooks


def classify_error(error: BaseException) -> Signal:
    """Return the signal for an error of W&B's."""
    if isinstance(error, Signal):
        return error
    wandb, words = library(), _words(error)
    status = getattr(getattr(error, "response", None), "http_status", 0) or _status(str(error))
    if status == 401 or isinstance(error, wandb.errors.AuthenticationError):
        return ActionRequired(f"W&B does not know this key ({words}): {MEND_KEY}")
    if isinstance(error, wandb.errors.UsageError):
        return ActionRequired(words)
    if status in (403, 404) or (isinstance(error, wandb.errors.CommError) and _DENIED.search(words)):
        return ActionRequired(f"W&B refuses ({words}); are entity and project right, and may this user write there?")
    if isinstance(error, ValueError | TypeError | ImportError | AttributeError):
        return ActionRequired(f"wandb {wandb.__version__} does not take this: {words}")
    return Retry(f"W&B: {words}")


class _Forgiving:
    """The client by which the library's finalizer sends: a `wandb-core` that was killed has nothing left to clean up."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def publish(self, request: Any) -> None:
        with contextlib.suppress(Exception):
            await self._client.publish(request)


def _quieten(connection: Any) -> None:
    """Have the library's thread that cleans up behind collected objects not fail where the `wandb-core` is gone: it would print a traceback, and end."""
    finalizer: Any = getattr(connection, "_finalizer", None)
    if (client := getattr(finalizer, "_client", None)) is not None:
        finalizer._client = _Forgiving(client)


def _let_go() -> None:
    """Make the library forget its connection, which is broken."""
    setup = importlib.import_module("wandb.sdk.wandb_setup").singleton()
    process = getattr(getattr(getattr(setup, "_connection", None), "_proc", None), "_process", None)
    if process is not None:
        process.poll()  # otherwise it warns that its child still runs
    for _ in range(2):  # the first call ends at the broken connection, the second one forgets the key
        with contextlib.suppress(Exception, SystemExit), hooks_kept():
            library().teardown()


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return _KEY.sub("***", text)[:_MOST_WORDS]


def _status(text: str) -> int:
    found = _STATUS.search(text)
    return int(found[1]) if found else 0


def _lives(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False
