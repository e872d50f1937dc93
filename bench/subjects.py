"""Subjects of `log_latency`: `log()`, the operations that it is made of, and what people do instead."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy

import asynctrack
from bench.blocks import NOTHING, Subject
from bench.work import numpy_step

LOG: Final = "run.log(data, step=step)"
MSGPACK: Final = "msgspec.msgpack.encode(data)"
JSON: Final = "msgspec.json.encode(data)"

VALUES: Final = {
    "6 floats": '{"a": step * 0.1, "b": step * 0.2, "c": step * 0.3, "d": step * 0.4, "e": step * 0.5, "f": step * 0.6}',
    "6 integers": '{"a": step, "b": -step, "c": step * 3, "d": step % 7, "e": step << 20, "f": 0}',
    "6 strings of 12": '{"a": f"{step:012}", "b": "validation-1", "c": "validation-2", "d": "validation-3", '
    '"e": "validation-4", "f": "validation-5"}',
    "6 NumPy scalars": '{"a": f8(step), "b": f8(0.5), "c": f4(step), "d": f4(0.5), "e": i8(step), "f": i8(7)}',
    "10 floats": "{key: step * 0.5 for key in keys10}",
    "100 floats": "{key: step * 0.5 for key in keys100}",
    "3 dicts of 4 floats": '{"train": {"a": step * 0.1, "b": step * 0.2, "c": step * 0.3, "d": step * 0.4}, '
    '"validate": {"a": step * 0.5, "b": step * 0.6, "c": step * 0.7, "d": step * 0.8}, '
    '"test": {"a": step * 0.9, "b": step * 1.1, "c": step * 1.2, "d": step * 1.3}}',
    "float, array of 16": '{"a": step * 0.1, "b": array16}',
}


def log_subject(run: asynctrack.Run, **given: Any) -> Subject:
    """Make the subject that calls `run.log`, after whose blocks the journal catches up; `given` replaces or adds arguments of `Subject`."""
    given = {"name": LOG, "call": LOG, "settle": lambda: run.flush("journaled"), **given}
    return Subject(given.pop("name"), given.pop("call"), names={"run": run, **given.pop("names", {})}, **given)


def json_subject() -> Subject:
    return Subject(JSON, JSON, names={"msgspec": msgspec})


def rivals(run: asynctrack.Run, opened: contextlib.ExitStack) -> list[Subject]:
    """Return log(), the operations that it could be made of, and what people do instead."""
    fd = opened.enter_context(_file())
    kept: deque[dict[str, object]] = deque()
    bounded: queue.Queue[dict[str, object]] = queue.Queue()
    disabled = asynctrack.init("bench", mode="disabled")
    plain = {"msgspec": msgspec}
    return [
        log_subject(run),
        log_subject(run, name="run.log(data)", call="run.log(data)"),
        Subject("run.log, mode='disabled'", LOG, names={"run": disabled}),
        json_subject(),
        Subject(MSGPACK, MSGPACK, names=plain),
        Subject("deque.append(data.copy())", "append(data.copy())", names={"append": kept.append}, settle=kept.clear),
        Subject("queue.Queue.put(data)", "put(data)", names={"put": bounded.put}, settle=bounded.queue.clear),
        Subject(
            "os.write(fd, msgspec.json.encode(data))",
            'write(fd, msgspec.json.encode(data) + b"\\n")',
            names={**plain, "write": os.write, "fd": fd},
            settle=lambda: _empty(fd),
        ),
    ]


def value_subjects(run: asynctrack.Run, opened: contextlib.ExitStack) -> list[Subject]:
    names = {
        "keys10": [f"metric/{k:02}" for k in range(10)],
        "keys100": [f"metric/{k:02}" for k in range(100)],
        "array16": numpy.arange(16.0),
        "f8": numpy.float64,
        "f4": numpy.float32,
        "i8": numpy.int64,
        "encode": msgspec.msgpack.Encoder(enc_hook=lambda value: value.tolist()).encode,
    }
    subjects = []
    for kind, make in VALUES.items():
        subjects.append(log_subject(run, name=f"log {kind}", make=make, names=names))
        subjects.append(Subject(f"encode {kind}", "encode(data)", make=make, names=names))
    return subjects


def cold_subjects(run: asynctrack.Run, opened: contextlib.ExitStack) -> list[Subject]:
    work = {"work": numpy_step()}
    plain = {"msgspec": msgspec, **work}
    return [
        Subject(NOTHING, "pass", names=work, before="work()"),
        log_subject(run, names=work, before="work()", settle=lambda: None),
        Subject(JSON, JSON, names=plain, before="work()"),
        Subject(MSGPACK, MSGPACK, names=plain, before="work()"),
    ]


@contextlib.contextmanager
def _file() -> Iterator[int]:
    with tempfile.NamedTemporaryFile(prefix="asynctrack-bench-", buffering=0) as file:
        yield file.fileno()


def _empty(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
