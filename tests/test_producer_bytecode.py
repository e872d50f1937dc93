"""The claim of `Producer._put` has no instruction at which CPython lets a thread, a signal or a collection in; other Pythons take a lock."""

from __future__ import annotations

import dis
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

import asynctrack
from asynctrack._system import private
from asynctrack.queue import fast_put
from asynctrack.queue.producer import Producer

# For each version that goes without a lock, where its source says at which instructions the interpreter looks at its eval breaker. Specialised
# forms of an instruction begin with the same words.
LOOKED_UP = {
    (3, 11): "CHECK_EVAL_BREAKER in Python/ceval.c",
    (3, 12): "CHECK_EVAL_BREAKER in Python/bytecodes.c",
    (3, 13): "HAS_EVAL_BREAK_FLAG in Include/internal/pycore_opcode_metadata.h",
}
# These instructions, of all of them together. The second line runs code of others, which looks for itself.
LOOKS = re.compile(
    r"(INSTRUMENTED_)?(CALL|PRECALL|RESUME|JUMP_BACKWARD|POP_JUMP_BACKWARD|ENTER_EXECUTOR"
    r"|SEND|YIELD_VALUE|FOR_ITER|GET_ITER|GET_AWAITABLE|IMPORT_|BEFORE_WITH|LOAD_SPECIAL|WITH_EXCEPT_START)"
)
# One that does not: it is for `await`, which leaves the look to what is awaited.
QUIET = {"JUMP_BACKWARD_NO_INTERRUPT"}
JUMPS_ALWAYS = {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"}
ENDS = {"RERAISE", "RAISE_VARARGS", "RETURN_VALUE", "RETURN_CONST"}


def is_verified_here() -> bool:
    return not fast_put.needs_lock(sys.implementation.name, sys.version_info[:2], private.has_interpreter_lock())


verified_here = pytest.mark.skipif(not is_verified_here(), reason="this Python takes the lock")


def claimed(code: CodeType) -> list[dis.Instruction]:
    """The instructions that can run from the load of `_limit` that precedes its claim to the store that releases it."""
    bytecode = list(dis.get_instructions(code))
    at = {instruction.offset: index for index, instruction in enumerate(bytecode)}
    touches = [i for i, instruction in enumerate(bytecode) if instruction.argval == "_limit"]
    loaded, claim = touches[:2]
    assert (bytecode[loaded].opname, bytecode[claim].opname) == ("LOAD_ATTR", "STORE_ATTR")
    found, waiting = set(range(loaded, claim + 1)), [claim + 1]
    while waiting:
        index = waiting.pop()
        if index in found:
            continue
        found.add(index)
        instruction = bytecode[index]
        waiting += [at[handler] for handler in handlers(code, instruction.offset)]
        if (instruction.opname, instruction.argval) == ("STORE_ATTR", "_limit") or instruction.opname in ENDS:
            continue
        if "JUMP" in instruction.opname:
            waiting.append(at[instruction.argval])
        if instruction.opname not in JUMPS_ALWAYS:
            waiting.append(index + 1)
    return [bytecode[index] for index in sorted(found)]


def handlers(code: CodeType, offset: int) -> list[int]:
    """Where an exception at an instruction leads."""
    entries: list[Any] = dis.Bytecode(code).exception_entries
    return [entry.target for entry in entries if entry.start <= offset < entry.end]


def openings(function: Callable[..., object]) -> list[str]:
    """Names of the instructions inside a function's claim at which something else may run."""
    names = [instruction.opname for instruction in claimed(function.__code__)]
    return [name for name in names if LOOKS.match(name) and name not in QUIET]


def doctored(old: str, new: str) -> FunctionType:
    """`Producer._put` with another line in it."""
    source = textwrap.dedent(inspect.getsource(Producer._put))
    assert source.count(old) == 1
    found = re.search(rf"^( *).*{re.escape(old)}", source, re.MULTILINE)
    assert found is not None
    scope: dict[str, Any] = {}
    exec(source.replace(old, new.replace("\n", "\n" + found[1])), {**vars(fast_put)}, scope)
    function: FunctionType = scope["_put"]
    return function


@verified_here
def test_nothing_can_come_in_between_claim_and_release() -> None:
    assert openings(Producer._put) == []


@verified_here
def test_the_claim_covers_what_must_be_whole() -> None:
    instructions = claimed(Producer._put.__code__)
    stored = {instruction.argval for instruction in instructions if instruction.opname == "STORE_ATTR"}
    assert stored == {"_limit", "_head", "_number"}
    assert sum(instruction.opname in ("STORE_SUBSCR", "STORE_SLICE") for instruction in instructions) == 4


@verified_here
def test_a_tracer_cannot_come_in_between_the_look_and_the_claim() -> None:
    touches = [i for i in claimed(Producer._put.__code__) if i.argval == "_limit"]
    assert touches[0].positions is not None
    assert touches[1].positions is not None
    assert touches[0].positions.lineno == touches[1].positions.lineno


@verified_here
def test_a_call_in_the_claim_is_found() -> None:
    assert openings(doctored("head = self._head", "head = int(self._head)"))


@verified_here
def test_a_call_with_unpacking_in_the_claim_is_found() -> None:
    assert openings(doctored("head = self._head", "head = max(*[self._head, 0])"))


@verified_here
def test_a_loop_in_the_claim_is_found() -> None:
    assert openings(doctored("placed = True", "placed = True\nwhile placed < end:\n    placed += 1"))


@verified_here
def test_a_call_in_the_branch_that_does_not_fit_is_found() -> None:
    assert openings(doctored("placed = False", "placed = bool()"))


@verified_here
def test_a_call_on_the_way_of_an_exception_is_found() -> None:
    assert openings(doctored("self._limit = limit or self._limit", "print()\nself._limit = limit or self._limit"))


@verified_here
def test_a_call_after_the_release_is_no_opening() -> None:
    assert openings(doctored("released = True", "released = True\nprint()")) == []


def test_every_version_that_goes_without_a_lock_was_looked_up() -> None:
    assert set(LOOKED_UP) == fast_put.VERIFIED


@pytest.mark.parametrize(
    ("implementation", "version", "has_interpreter_lock", "locked"),
    [
        *(("cpython", version, True, False) for version in LOOKED_UP),
        *(("cpython", version, False, True) for version in LOOKED_UP),
        ("cpython", (3, 10), True, True),
        ("cpython", (3, 14), True, True),
        ("cpython", (3, 15), True, True),
        ("cpython", (4, 11), True, True),
        ("pypy", (3, 11), True, True),
    ],
)
def test_only_versions_that_were_looked_at_go_without_a_lock(
    implementation: str, version: tuple[int, int], has_interpreter_lock: bool, locked: bool
) -> None:
    assert fast_put.needs_lock(implementation, version, has_interpreter_lock) is locked


# Imports the producer as the given Python would, and puts a few frames.
ON = """
import sys

package = type(sys)("asynctrack")
package.__path__ = [{package!r}]
sys.modules["asynctrack"] = package
{pretend}
from asynctrack.queue.producer import Producer
from asynctrack.queue.ring import Ring

producer = Producer(Ring.create({path!r}, 65536, {{"run": "/runs/a"}}), bool)
assert all(producer.put(b"x" * size) for size in range(100))
print("locked" if Producer.put is Producer._put_locked else "not locked", producer.number)
"""


@pytest.mark.parametrize(
    "pretend",
    [
        "sys.version_info = (3, 99, 0, 'final', 0)",
        "sys.implementation.name = 'another'",
        "sys._is_gil_enabled = lambda: False",
    ],
)
def test_a_python_that_was_not_looked_at_takes_the_lock(tmp_path: Path, pretend: str) -> None:
    script = ON.format(package=str(Path(asynctrack.__file__).parent), pretend=pretend, path=str(tmp_path / "a.ring"))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout == "locked 100\n", done.stderr
