"""What the native core reads with gives back what it takes: many calls of each function leave memory flat."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from memory_growth import CALLS, lost_bytes_apart
from support import ROOT, run_child
from test_fuzz import packed
from test_unusable_core import compiled

from asynctrack._system.native import is_native
from asynctrack.records.codec import Record

if is_native:
    from asynctrack import _native

pytestmark = pytest.mark.skipif(not is_native, reason="the native core is not built")

NUMBERS = {"loss": 0.5, "n": 1 << 40, "ok": True}
DATA = {**NUMBERS, "phase": "träin", "none": None, "a": {"b": 1}}
ODD = {"list": [1, [2.5]], "bytes": b"x", "wide": 2**64 - 1}


def frames_of(*payloads: bytes) -> memoryview:
    return memoryview(b"".join(packed(number, payload) for number, payload in enumerate(payloads)))


def payload(data: Any) -> bytes:
    return msgspec.msgpack.encode((1, None, data))


def failing(call: Callable[[], object]) -> Callable[[int], object]:
    def attempt(n: int) -> None:
        with contextlib.suppress(AttributeError, IndexError, TypeError, ValueError):
            call()

    return attempt


def calls() -> dict[str, Callable[[int], object]]:
    flat, all_kinds = frames_of(payload(DATA)), frames_of(payload(DATA), payload(ODD), payload({1: 2}), b"\x93")
    others = memoryview(packed(1, b"{}", 1) + packed(1, payload(DATA)) + packed(2, b"{}", 2))
    decoder, encoder = _native.FrameDecoder(Record), _native.LineEncoder(7, False)
    named = [frames_of(payload({f"x{n}": n})) for n in range(500)]
    whole = [(0, len(all_kinds))]
    scan = _native.Scan(7, True)
    scan.feed(flat, 0, len(flat), len(flat))
    scan.feed(flat, 0, len(flat), len(flat))
    scan.put(1, 1, [("object", [1]), ("loss", 0.25), ("phase", None)])
    index = {name: at for at, name in enumerate(scan.names())}

    def scanned(n: int) -> None:
        made = _native.Scan(n, True, ["loss", "n", f"x{n % 50}"])
        made.feed(flat, 0, len(flat), len(flat))
        made.values_of(0, "d")
        made.aligned(1, "q")

    def put(n: int) -> None:
        scratch.put(n, n, [("object", [n]), ("loss", 0.25), ("text", f"{n}"), ("big", 1 << 70)])
        if n % 100 == 0:
            scratch.clear()

    def fed(n: int) -> None:
        scratch.feed(flat, 0, len(flat), len(flat))
        if n % 100 == 0:
            scratch.clear()
            scratch.begin_session({"loss": n}, True)

    scratch = _native.Scan(8, True)
    return {
        "other_frames": lambda n: _native.other_frames(others, 0, len(others)),
        "other_frames beyond": failing(lambda: _native.other_frames(others, 0, 1 << 40)),
        "make a decoder": lambda n: _native.FrameDecoder(Record),
        "take": lambda n: decoder.take(all_kinds, whole, 0, 1 << 30, 1 << 30, 7),
        "take beyond": failing(lambda: decoder.take(all_kinds, [(0, 1 << 30)], 0, 1, 1, 7)),
        "make an encoder of lines": lambda n: _native.LineEncoder(n, False),
        "take lines": lambda n: encoder.take(all_kinds, whole, 0, 1 << 30, 1 << 30),
        "take lines of other names": lambda n: encoder.take(named[n % 500], [(0, len(named[n % 500]))], 0, 100, 100),
        "take lines beyond": failing(lambda: encoder.take(all_kinds, [(0, 1 << 30)], 0, 1, 1)),
        "scan": scanned,
        "scan of wrong keys": failing(lambda: _native.Scan(1, False, [1])),  # type: ignore[list-item]
        "feed": fed,
        "put": put,
        "put what is no pair": failing(lambda: scratch.put(1, 1, [("a", 1), 5])),  # type: ignore[list-item]
        "firsts": lambda n: scan.firsts(),
        "names": lambda n: scan.names(),
        "steps": lambda n: memoryview(scan.steps()).tolist(),
        "times": lambda n: memoryview(scan.times()).tolist(),
        "numbers": lambda n: (scan.rows, scan.known, scan.describe(0), scan.first_number(0)),
        "steps_of": lambda n: memoryview(scan.steps_of(index["loss"])).tolist(),
        "rows_of": lambda n: len(scan.rows_of(index["phase"])),
        "objects_of": lambda n: [scan.objects_of(at) for at in index.values()],
        "aligned_objects": lambda n: [scan.aligned_objects(at, 1, 3) for at in index.values()],
        "tally": lambda n: scan.tally(index["loss"], 0.0, 0.0),
        "values of a wrong type": failing(lambda: scan.values_of(index["phase"], "d")),
        "a column that is not there": failing(lambda: scan.describe(99)),
    }  # fmt: skip


def test_some_calls_of_each_function_work() -> None:
    for call in calls().values():
        for n in range(1000):
            call(n)


@pytest.mark.parametrize("times", CALLS)
@pytest.mark.parametrize("name", list(calls()) if is_native else [])
def test_many_calls_of_each_function_leave_memory_flat(name: str, times: int) -> None:
    assert lost_bytes_apart(calls()[name], times) == 0


@pytest.mark.system
@pytest.mark.parametrize("each", [1, 10])
def test_memory_that_calls_lose_is_told(each: int) -> None:
    """Of a float that each call loses, or each tenth."""
    script = f"""
    from memory_growth import lost_bytes
    kept = []
    print(lost_bytes(lambda n: n % {each} or kept.append(n + 0.5), 100_000))
    """
    # In a process of its own: this one may have room that others have left.
    assert run_child(textwrap.dedent(script), PYTHONPATH=str(ROOT / "tests")) > 24 * 100_000 / each


LONG_PARENT = """
import json, os, sys
from pathlib import Path
import asynctrack
from asynctrack.testing import JournaledRun

def peak():  # of this program alone: `ru_maxrss` has that of the process it was started from
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

path, inside = Path(sys.argv[1]), sys.argv[2]
child = os.fork()  # what writes the run may need more memory than what reads it
if not child:
    with JournaledRun(path) as run:
        run.log({"k" * 12_000: {f"child{n}": {"x": n} if inside == "twice" else n for n in range(20_000)}}, 1)
        run.journal()
        run.end()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
before = peak()
found = asynctrack.open_run(path).columns()
assert len(found) == 20_000
print(json.dumps(peak() - before))
"""


@pytest.mark.system  # not under sanitizers, which keep what was freed
@pytest.mark.parametrize("inside", ["once", "twice"])
def test_long_name_above_many_others_is_not_kept_for_each(inside: str, tmp_path: Path) -> None:
    native, python = (
        run_child(LONG_PARENT, tmp_path / f"pure{pure}" / "run", inside, ASYNCTRACK_PURE=pure) for pure in ("", "1")
    )
    assert 0 < native < 1.3 * python


@pytest.mark.system  # nor the compiler
def test_names_are_hashed_with_a_key_as_python_hashes_its_own(tmp_path: Path) -> None:
    if sys.hash_info.algorithm != "siphash13" or not (ROOT / "asynctrack" / "_native").is_dir():
        pytest.skip("this Python hashes in another way, or the sources of the core are not here")
    source = tmp_path / "hash.c"
    header = ROOT / "asynctrack" / "_native" / "siphash.h"
    source.write_text(
        f'#include "{header}"\nlong long hash_of(const char *bytes, size_t n) {{ return (long long)siphash13(0, 0, bytes, n); }}\n'
    )
    compiled(tmp_path / "hash.so", [source])
    hash_of = ctypes.CDLL(str(tmp_path / "hash.so")).hash_of
    hash_of.restype, hash_of.argtypes = ctypes.c_longlong, [ctypes.c_char_p, ctypes.c_size_t]
    names = [bytes(range(1, length + 1)) for length in range(1, 70)]
    script = "import json, sys; print(json.dumps([hash(bytes.fromhex(name)) for name in json.loads(sys.argv[1])]))"
    listed = "[" + ", ".join(f'"{name.hex()}"' for name in names) + "]"
    assert [hash_of(name, len(name)) for name in names] == run_child(script, listed, PYTHONHASHSEED="0")
