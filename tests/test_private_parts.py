"""Each private part of CPython and anyio that we use is there, and does what we take it to do; a new version that lacks one fails here.

What comes where it is missing is tested too: that is what users of such a version would meet.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import queue
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
from support import DEADLINE_S, INSTALLED, ROOT, own_shared_memory

import asynctrack
from asynctrack._system import loop_thread, private

PACKAGE = Path(asynctrack.__file__).parent
# They look private by their names, and are documented.
PUBLIC = {"__future__", "_thread", "os._exit"}


def manifest_of(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def private_uses(module: Path) -> list[str]:
    """What a module imports or asks of modules of others that begins with an underscore."""
    found, foreign = [], set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
            foreign |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in foreign:
            found.append(f"{node.value.id}.{node.attr}")
    return [
        name
        for name in found
        if name.partition(".")[0] not in ("asynctrack", *PUBLIC)
        and name not in PUBLIC
        and any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    ]


def test_nothing_else_of_ours_uses_private_parts() -> None:
    modules = [module for module in PACKAGE.rglob("*.py") if module.name != "private.py"]
    assert {str(module): uses for module in modules if (uses := private_uses(module))} == {}


def test_a_private_part_would_be_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import threading, anyio._backends\nfrom _queue import Empty\nthreading._register_atexit(print)\n"
    )
    assert private_uses(module) == ["anyio._backends", "_queue", "_queue.Empty", "threading._register_atexit"]


def test_whether_there_is_an_interpreter_lock_is_known() -> None:
    assert private.has_interpreter_lock() is bool(getattr(sys, "_is_gil_enabled", lambda: True)())
    assert hasattr(sys, "_is_gil_enabled") or sys.version_info < (3, 13)


def test_frame_is_that_of_who_asks_and_of_those_above() -> None:
    def above() -> tuple[str, str]:
        return private.frame().f_code.co_name, private.frame(1).f_code.co_name

    assert above() == ("above", "test_frame_is_that_of_who_asks_and_of_those_above")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="threads that come too late just wait")
def test_what_threads_end_with_is_loaded_before_the_file_system_is_another() -> None:
    script = """
import asynctrack, tempfile
run = asynctrack.init("p", dir=tempfile.mkdtemp())
with open("/proc/self/maps") as maps:
    loaded = maps.read()
run.finish()
print("libgcc_s" in loaded, "/libc.so.6" in loaded)
"""
    with own_shared_memory():
        (line,) = manifest_of(script)
    assert line in ("True True", "False False")  # without glibc nothing is to be loaded


def test_weak_references_are_pythons_own() -> None:
    import _weakref

    assert private.weak_reference() is _weakref.ref is weakref.ref


def test_weak_references_are_there_without_the_private_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_weakref", None)
    assert private.weak_reference() is weakref.ref


def test_queues_are_pythons_own() -> None:
    import _queue

    kind, empty = private.simple_queue()
    assert (kind, empty) == (_queue.SimpleQueue, _queue.Empty)
    with pytest.raises(queue.Empty):
        kind().get(timeout=0.001)


def test_queues_are_there_without_the_private_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_queue", None)
    kind, empty = private.simple_queue()
    assert (kind, empty) == (queue.SimpleQueue, queue.Empty)


@pytest.mark.parametrize("there", [True, False])
def test_signals_are_masked_for_one_thread(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if there:
        import _signal  # noqa: F401  # what a Python without it would lack
    else:
        monkeypatch.setitem(sys.modules, "_signal", None)
    set_mask, signals = private.signal_masks()
    assert {signal.SIGTERM, signal.SIGUSR1} <= set(signals())
    before = set_mask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        set_mask(signal.SIG_SETMASK, before)


def test_backend_of_anyio_is_imported_before_the_loop() -> None:
    lines = manifest_of("""
import sys
from asynctrack._system import private
assert private.load_asyncio_backend() is not None
before = set(sys.modules)
import anyio, asyncio
async def main():
    await anyio.sleep(0)
asyncio.run(main())
print(sorted(name for name in set(sys.modules) - before if name.startswith("anyio")))
""")
    assert lines == ["[]"]


def test_anyio_whose_backend_is_elsewhere_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyio._backends._asyncio", None)
    assert private.load_asyncio_backend() is None


def test_function_is_called_when_the_main_thread_ends_while_executors_can_be_had() -> None:
    lines = manifest_of("""
import atexit
from concurrent.futures import ThreadPoolExecutor
from asynctrack._system import private
pool = ThreadPoolExecutor(1)
pool.submit(int).result()  # Python 3.12 starts no thread any more when the main thread ends
def ends():
    print("can" if pool.submit(lambda: True).result() else "cannot", private.threads_are_over())
atexit.register(lambda: print("atexit"))
print(private.call_when_main_thread_ends(ends), private.threads_are_over())
""")
    assert lines == ["True False", "can True", "atexit"]


def test_main_thread_that_has_ended_can_have_nothing_called_any_more() -> None:
    lines = manifest_of("""
import atexit
from asynctrack._system import private
atexit.register(lambda: print(private.call_when_main_thread_ends(print), private.threads_are_over()))
""")
    assert lines == ["False True"]


def test_threading_without_private_parts_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(threading, "_register_atexit")
    monkeypatch.delattr(threading, "_SHUTTING_DOWN")
    assert not private.call_when_main_thread_ends(print)
    assert not private.threads_are_over()


CHILD = """
import multiprocessing, sys
from asynctrack._system import private

def ends():
    print(private.exit_code_of_child(), type(sys.exception()).__name__)
    sys.stdout.flush()

def work(how):
    print(private.call_when_child_ends(ends, -100), private.call_when_main_thread_ends(ends))
    if how == "exits":
        sys.exit(3)
    if how == "raises":
        sys.stderr = open("/dev/null", "w")
        raise ValueError

if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=work, args=(sys.argv[1],))
    child.start()
    child.join()
    print(child.exitcode)
"""


@pytest.mark.parametrize(
    ("how", "code", "error"), [("returns", 0, "NoneType"), ("exits", 3, "SystemExit"), ("raises", 1, "ValueError")]
)
def test_end_of_a_child_of_multiprocessing_and_why_are_known_in_the_child(
    how: str, code: int, error: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, script, how], capture_output=True, text=True, timeout=DEADLINE_S, check=True,
        env={"PYTHONPATH": str(INSTALLED)},
    )  # fmt: skip
    registered, first, second, ended = done.stdout.splitlines()
    assert (registered, ended) == ("True True", str(code))
    # Up to 3.12 the finalizer comes first, with the exception on its way; from 3.13 on the main thread's end does, with the code.
    assert first in (f"{code} NoneType", f"None {error}"), (first, second)


def test_process_that_is_no_child_has_no_code_and_calls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "multiprocessing.util", raising=False)
    assert private.exit_code_of_child() is None
    assert not private.call_when_child_ends(print, -100)


UNPICKLED = """
import multiprocessing, sys
from asynctrack._system import private

class Argument:
    def __reduce__(self):
        return arrive, ()

def begins():
    print("begins", flush=True)

def arrive():
    print("arrives", flush=True)
    private.call_when_child_begins(begins)

def work(argument):
    private.call_when_child_begins(begins)
    print("works", flush=True)

if __name__ == "__main__":
    child = multiprocessing.get_context("forkserver").Process(target=work, args=(Argument(),))
    child.start()
    child.join()
"""


def test_child_of_a_fork_server_that_still_gets_its_arguments_is_known(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNPICKLED)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=DEADLINE_S, env={"PYTHONPATH": str(INSTALLED)}
    )
    assert (done.stdout.split(), done.stderr) == (["arrives", "begins", "works"], "")


def test_child_that_gets_its_arguments_is_not_known_without_the_private_part(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing.util

    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    monkeypatch.delattr(multiprocessing.util, "register_after_fork")
    private.call_when_child_begins(print)


def test_handler_that_prints_what_nobody_handles_is_known() -> None:
    assert private.writes_to_stderr_of_the_moment(logging.lastResort)
    assert not private.writes_to_stderr_of_the_moment(logging.StreamHandler())
    assert not private.writes_to_stderr_of_the_moment(None)


def test_logging_without_that_handlers_class_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(logging, "_StderrHandler")
    assert not private.writes_to_stderr_of_the_moment(logging.lastResort)


def test_loop_asks_nothing_of_its_executor_but_what_ours_has() -> None:
    """`_FileThreads` has no state of `ThreadPoolExecutor`'s own that is right: what asyncio and aiofiles call must be what it overrides."""
    asked: list[str] = []

    class Watched(loop_thread._FileThreads):
        def __getattribute__(self, name: str) -> object:
            asked.append(name)
            return super().__getattribute__(name)

    async def main() -> str:
        files = Watched()
        asked.clear()  # of what makes it
        asyncio.get_running_loop().set_default_executor(files)
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert asyncio.run(main()) == "asynctrack-files"
    assert {"submit", "shutdown"} <= set(asked) <= {"submit", "shutdown", "_calls", "_work", "__class__"}
