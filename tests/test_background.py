"""The threads of ours go on after anything that fails on them, and say so once in a while."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from support import run_child, wait_until

from asynctrack._system import messages
from asynctrack._system.background import BackgroundThread
from asynctrack.client import health

# No machine has so much: to ask for it is a real MemoryError, without a line of ours that raises it.
TOO_MANY_BYTES = 1 << 62


def exhaust_memory() -> None:
    bytearray(TOO_MANY_BYTES)


def exits() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("fail", [exhaust_memory, exits])
def test_items_behind_one_that_fails_are_handled_by_the_same_thread(fail: Callable[[], None]) -> None:
    failures: list[BaseException] = []
    handled: list[int] = []
    thread: BackgroundThread[Callable[[], object]] = BackgroundThread(lambda do: do(), 10, failed=failures.append)
    assert thread.start()
    for _ in range(2):
        thread.ask(fail)
        thread.ask(lambda: handled.append(threading.get_ident()))
    wait_until(lambda: len(handled) == 2, "the items behind it")
    assert len(set(handled)) == 1
    assert [type(failure) for failure in failures] == [MemoryError if fail is exhaust_memory else SystemExit] * 2
    wait_until(lambda: not thread.busy, "the thread waits")


def test_thread_that_fails_between_two_items_handles_the_next() -> None:
    failures: list[BaseException] = []
    handled = threading.Event()
    memory_is_short = True

    def idle_after() -> None:
        if memory_is_short:
            exhaust_memory()

    thread: BackgroundThread[str] = BackgroundThread(
        lambda _: handled.set(), 10, failed=failures.append, idle_after=idle_after
    )
    assert thread.start()
    thread.ask("an item")
    wait_until(lambda: len(failures) >= 2, "it fails again and again")
    assert not handled.is_set()
    memory_is_short = False
    wait_until(handled.is_set, "the next item")


def test_thread_whose_failure_cannot_be_said_goes_on() -> None:
    handled = threading.Event()
    thread: BackgroundThread[Callable[[], object]] = BackgroundThread(
        lambda do: do(), 10, failed=lambda _: exhaust_memory()
    )
    assert thread.start()
    thread.ask(exhaust_memory)
    thread.ask(handled.set)
    wait_until(handled.is_set, "the next item")


def test_failure_of_a_thread_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        for pause in health.reading(exhaust_memory):
            threading.Event().wait(pause)
    messages.leave()
    assert caplog.messages == ["asynctrack: looking at the files of the open runs failed, and goes on: MemoryError"]


def test_handler_that_runs_out_of_memory_keeps_no_other_message_back() -> None:
    script = """
import json, logging, sys
from asynctrack._system import messages
said, printed = [], []
class Exhausts(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
        bytearray(1 << 62)
class Stream:
    def write(self, text):
        printed.append(text)
    def flush(self):
        pass
logging.getLogger("asynctrack").addHandler(Exhausts())
sys.stderr = Stream()
for number in range(3):
    messages.warn_now(f"message {number}")
print(json.dumps([said, printed]))
"""
    said, printed = run_child(script)
    assert said == ["message 0", "message 1", "message 2"]
    assert printed == ["asynctrack: passing on a message failed, and goes on: MemoryError\n"]
