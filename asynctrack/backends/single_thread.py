"""Single thread: call functions one after the other, always on the same thread, for libraries that need that.

Runs where the sink does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class SingleThread:
    """A daemon thread that calls functions. Nobody has to wait for it when the process ends, so its calls may hang.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_ThreadCall | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()

    def __del__(self) -> None:
        self._calls.put(None)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` on the thread, and return its result or raise its exception."""
        call = _ThreadCall(lambda: function(*args, **kwargs))
        self._calls.put(call)
        call.done.wait()
        if call.error is not None:
            try:
                raise call.error
            finally:
                del call  # otherwise the call and its traceback hold each other
        result: T = call.result
        return result


class _ThreadCall:
    """A call and its result."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Call the function, and keep its result or its exception."""
        try:
            self.result = self.function()
        except BaseException as error:  # raised again by `call` in the caller
            self.error = error
        self.done.set()


def _work(calls: SimpleQueue[_ThreadCall | None]) -> None:
    while (call := calls.get()) is not None:
        call.run()
        del call  # its objects must not live until the next call comes
