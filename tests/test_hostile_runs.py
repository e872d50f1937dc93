"""A run's directory made by somebody who means harm: each command ends, with a word and an exit code, in little memory, and touches nothing outside."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from delivery_support import journal, rough_shared_memory
from support import start

from asynctrack.journal import manifest
from asynctrack.journal.layout import BATCH_HEADER, BATCH_MAGIC, BLOCK_BYTES, BatchHeader, salt_of, segment_name
from asynctrack.journal.manifest import Manifest
from asynctrack.journal.reader import journal_id_of
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import (
    CHECKPOINT,
    CONFIG,
    FAILURE,
    FRAME_HEADER_BYTES,
    KIND_SHIFT,
    NOTE,
    RECORD,
    START,
    SUMMARY,
    frame_size,
)

pytestmark = pytest.mark.usefixtures("own_state")

RECORDS: Final = 20
# Of address space for a command: what it takes for a small run, and what 64 MiB of JSON may become.
MEMORY_BYTES: Final = 2 << 30
COMMANDS: Final = {
    "show": ["show", "RUN"],
    "show --json": ["show", "RUN", "--json"],
    "ls": ["ls", "DIR"],
    "ls of values": ["ls", "DIR", "--sort", "-max(i)", "--columns", "config.lr,last(i),max(*)", "--group", "status"],
    "compare": ["compare", "RUN", "--all"],
    "query": ["query", "SELECT count(*), max(value) FROM metrics JOIN runs USING (run)", "--dir", "DIR"],
    "tail": ["tail", "RUN"],
    "wait": ["wait", "RUN", "--until", "i > 1e9", "--timeout-s", "0.1"],
    "verify": ["verify", "RUN"],
    "export": ["export", "RUN", "--format", "jsonl"],
    "sync": ["sync", "RUN", "--patience-s", "0.1"],
    "to": ["sync", "RUN", "--patience-s", "0.1", "--to", "csv"],
    "resume": ["RESUME"],
    "rm": ["rm", "RUN", "--yes", "--force"],
}
FEW: Final = {name: COMMANDS[name] for name in ("show", "ls", "verify", "export", "sync", "resume", "rm")}
# All of them in one interpreter, whose start takes longer than they do. It prints for each its exit code and what it said.
EACH = """
import contextlib, io, json, os, time, traceback
import asynctrack
from asynctrack import cli

def resume(run):
    try:
        asynctrack.init(os.path.basename(os.path.dirname(run)), id=os.path.basename(run), worker="thread", finish_timeout_s=0.05,
            dir=os.path.dirname(os.path.dirname(run)), resume="allow").finish()
    except (asynctrack.AsynctrackError, OSError) as error:
        print(error)
        return 1

for run in sys.argv[2:]:
    for name, arguments in json.loads(sys.argv[1]).items():
        out, err, began = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO(), time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                told = {"RUN": run, "DIR": os.path.dirname(run)}
                code = resume(run) if name == "resume" else cli.main([told.get(word, word) for word in arguments])
            except SystemExit as exit:
                code = exit.code
            except BaseException:
                code = -1
                traceback.print_exc()
        out.flush()
        print(json.dumps([os.path.basename(run), name, code or 0, out.buffer.getvalue().decode()[-20000:], err.getvalue()[-3000:], time.monotonic() - began]), flush=True)
os._exit(0)  # not to wait for workers of runs that are gone
"""


class Answer(msgspec.Struct, array_like=True):
    """How a command ended, and what it said."""

    run: str
    command: str
    code: int
    out: str
    err: str
    seconds: float


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may touch, beside `runs`."""
    with rough_shared_memory():
        folder = tmp_path / "outside"
        (folder / "empty").mkdir(parents=True)
        (folder / "precious").write_bytes(b"a line\n" * 20 + b"another, not whole")
        ours = make_run(folder / "ours")
        for name in ("cursors", "media", "csv"):
            (ours / name).mkdir()
        (ours / "metrics.jsonl").write_bytes(b'{"_step":0,"_timestamp":1.0,"secret":1}\n')
        before = snapshot(folder)
        yield folder
        assert snapshot(folder) == before


@pytest.fixture
def project(tmp_path: Path, outside: Path) -> Path:
    """Where the runs of somebody else lie."""
    return tmp_path / "runs" / "p"


def make_run(path: Path) -> Path:
    run = journal(path, RECORDS).path
    told = Manifest(id=path.name, name=path.name, project=path.parent.name, created_at="", status="finished")
    manifest.save(run, told)
    content = msgspec.json.decode((run / "run.json").read_bytes())
    (run / "run.json").write_bytes(msgspec.json.encode({**content, "backends": {"jsonl": {"kind": "jsonl"}}}))
    return run


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All there is in a folder: kinds, sizes, times and contents."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content)
    return found


def ask(
    *runs: Path, commands: dict[str, list[str]] = COMMANDS, memory: int = MEMORY_BYTES
) -> dict[str, dict[str, Answer]]:
    """Give the commands for each run, with little memory and in little time; each must end in its own words."""
    child = start(
        f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))\n{EACH}",
        msgspec.json.encode(commands).decode(),
        *runs,
    )
    try:
        out, err = child.communicate(timeout=50)
    finally:
        child.kill()
    answers: dict[str, dict[str, Answer]] = {}
    for line in out.splitlines():
        answer = msgspec.json.decode(line, type=Answer)
        answers.setdefault(answer.run, {})[answer.command] = answer
        assert answer.seconds < 10, answer
        assert answer.code in (0, 1, 2, 124), f"{answer.run}: {answer.command}: {answer.err}"
        assert answer.code == 0 or answer.err or answer.out, f"{answer.run}: {answer.command} says nothing"
    assert {run: list(said) for run, said in answers.items()} == {run.name: list(commands) for run in runs}, err
    return answers


def exported(answer: Answer) -> list[Any]:
    """What a command exported of the records."""
    return [msgspec.json.decode(line) for line in answer.out.splitlines()]


# What is not a file where one is expected

Kind = Callable[[Path, Path], object]


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "precious")


def link_to_ours(path: Path, outside: Path) -> None:
    """To the same file of another run."""
    inner = path.relative_to(path.parents[1] if path.parent.name not in ("journal", "cursors") else path.parents[2])
    path.symlink_to(outside / "ours" / Path(*inner.parts[1:]))


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def device(path: Path, outside: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: it never ends


def endless(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


# Each in a run of its own, but for those that do not hide each other.
PLACES: Final = [
    ["run.json"],
    ["journal/000001.atj"],
    [
        "journal/000002.atj",
        "cursors/jsonl.json",
        "cursors/jsonl.lock",
        "cursors/csv.json",
        "dead_letters.jsonl",
        "worker.log",
    ],
    ["lock", "metrics.jsonl", "csv"],
    ["metrics.jsonl", ".run.json.new", "cursors/.jsonl.json.new", "media"],
]


@pytest.mark.system
@pytest.mark.parametrize("kind", [link, link_to_ours, pipe, directory, device, endless], ids=lambda kind: kind.__name__)
def test_what_is_no_file_is_neither_followed_nor_waited_for(project: Path, outside: Path, kind: Kind) -> None:
    runs = []
    for number, names in enumerate(PLACES):
        run = make_run(project / f"theirs-{number}")
        for name in names:
            (run / name).parent.mkdir(exist_ok=True)
            (run / name).unlink(missing_ok=True)
            kind(run / name, outside)
        runs.append(run)
    answers = ask(*runs)
    for said in answers.values():
        assert "secret" not in "".join(answer.out + answer.err for answer in said.values())
    assert answers["theirs-0"]["verify"].code == 1
    assert answers["theirs-1"]["verify"].code == 1
    assert {name: said["rm"].err for name, said in answers.items() if said["rm"].code} == {}
    assert not any(run.exists() for run in runs)


@pytest.mark.system
@pytest.mark.parametrize("name", ["journal", "cursors", "media", "csv"])
def test_folder_that_is_a_link_is_not_entered(project: Path, outside: Path, name: str) -> None:
    run = make_run(project / "theirs")
    if name == "journal":
        (run / name).rename(run / "aside")
    (run / name).symlink_to(outside / "ours" / name)
    answers = ask(run)["theirs"]
    if name == "journal":
        assert exported(answers["export"]) == []
        assert "is a link" in answers["verify"].out


# What run.json and the cursors say

DEEP: Final = 100_000
FAR: Final = "9999-12-31T23:59:59.999999-23:59"
TOLD: Final[dict[str, Any]] = {
    "lists": b'{"config":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "maps": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "half as deep as Python goes": {"config": {"a": msgspec.Raw(b"[" * 500 + b"]" * 500)}},
    "digits": b'{"version":' + b"9" * 5000 + b"}",
    "more than can be": b" " * (65 << 20),
    "no command": {"environment": {"command": 5, "host": [], "python": {}, "pid": "x\x1b[31m", "opened_at": 7}},
    "first year": {"created_at": "0001-01-01T00:00:00", "ended_at": FAR, "status": "failed", "error": "\x1b]0;x\x07"},
    "last year": {"created_at": FAR, "ended_at": "0001-01-01T00:00:00+23:59"},
    "negative": {"position": [-5, -7, -9], "dropped": {"full": -1}, "limits": {"after_exit_max_s": -1e308}},
    "beyond": {"position": [10**30, 10**300, 2**64]},
    "a position of other types": {"position": [0.5, "64", []]},
    "names": {"id": "../../outside/ours", "project": "/", "name": "a\n\x00/b", "backends": {"../x": {"kind": "jsonl"}}},
    "kinds": {"backends": {"a": {"kind": ["jsonl"]}, "b": {"kind": "os.system"}, "c": {}, "d": {"kind": "jsonl", "file": 5}}},
    "paths": {
        "backends": {
            "a": {"kind": "jsonl", "file": "../../../outside/precious"},
            "b": {"kind": "jsonl", "file": "x\x00y"},
            "c": {"kind": "csv", "folder": "/etc"},
            "d": {"kind": "parquet", "folder": "../../../outside"},
            "e": {"kind": "tensorboard", "dir": "../../../outside"},
            "f": {"kind": "json", "file": "../../../outside/ours/run.json"},
        }
    },
}  # fmt: skip


@pytest.mark.system
def test_whatever_run_json_says_commands_end_in_their_own_words(project: Path) -> None:
    runs = []
    for number, told in enumerate(TOLD.values()):
        run = make_run(project / f"{number}")
        content = msgspec.json.decode((run / "run.json").read_bytes())
        raw = (
            told
            if isinstance(told, bytes)
            else msgspec.json.encode({**content, **told})
            if isinstance(told, dict)
            else b""
        )
        (run / "run.json").write_bytes(raw)
        runs.append(run)
    huge = make_run(project / "a gigabyte")
    os.truncate(huge / "run.json", 1 << 30)
    answers = ask(*runs, huge)
    assert not list(project.parent.rglob("escaped*"))
    assert all("\x1b" not in answer.out for said in answers.values() for answer in said.values())


CURSORS: Final[dict[str, bytes]] = {
    "lists": b'{"state":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "negative": b'{"position":[-1,-64,-8],"delivered":-5,"skipped":{"a":-1},"refused":-3,"next_number":-9}',
    "beyond": b'{"position":[1,%d,%d],"delivered":%d,"next_number":%d}' % (10**30, 2**64, 2**70, 2**80),
    "another's state": b'{"position":[1,64,0],"delivered":1,"state":{"file":"../../../outside/precious","bytes":1,"offset":-1}}',
    "state of no kind": b'{"position":[1,64,0],"delivered":1,"state":{"offset":"x","file":7,"lines":[]}}',
    "digits": b'{"delivered":' + b"9" * 5000 + b"}",
}


@pytest.mark.system
def test_whatever_a_cursor_says_commands_end_in_their_own_words(project: Path) -> None:
    runs = []
    for number, content in enumerate(CURSORS.values()):
        run = make_run(project / f"{number}")
        (run / "cursors").mkdir()
        (run / "cursors" / "jsonl.json").write_bytes(content)
        (run / "cursors" / "..json").write_bytes(content)
        runs.append(run)
    answers = ask(*runs)
    assert all(len(exported(said["export"])) == RECORDS for said in answers.values())


# What the journal says, with good checksums


def packed(payload: bytes, number: int = RECORDS, kind: int = RECORD) -> bytes:
    """A frame."""
    header = len(payload).to_bytes(8, "little") + (number + (kind << KIND_SHIFT)).to_bytes(8, "little")
    return (header + payload).ljust(frame_size(len(payload)), b"\0")


def append(run: Path, frames: bytes, *, ring: int = 77) -> None:
    """Add a batch that no asynctrack has written."""
    writer = Writer(run / "journal")
    start = writer.ends.get(ring, 0)
    writer.append(ring, start, start + len(frames), 0, frames)
    writer.close()


def extension(code: int, payload: bytes) -> bytes:
    return msgspec.msgpack.encode((1, None, {"x": msgspec.msgpack.Ext(code, payload)}))


def medium(*parts: Any) -> bytes:
    return extension(3, msgspec.msgpack.encode(parts))


DEEP_PACKED: Final = b"\x91" * DEEP + b"\xc0"
PAYLOADS: Final[dict[str, bytes]] = {
    "empty": b"",
    "nil": b"\xc0",
    "text": b"\xa1x",
    "torn": b"\x93\x01",
    "deep": DEEP_PACKED,
    "deep data": b"\x93\x01\xc0\x81\xa1x" + DEEP_PACKED,
    "promises much": b"\x93\x01\xc0\xdf\xff\xff\xff\xff",
    "a long list": b"\xdd\x7f\xff\xff\xff",
    "digits": extension(1, b"9" * 100_000),
    "no digits": extension(1, b"x"),
    "no array": extension(2, b"\xc0"),
    "array of no kind": extension(2, msgspec.msgpack.encode(("zz", (3,), b"abc"))),
    "array of another size": extension(2, msgspec.msgpack.encode(("f8", (10**9, 10**9), b"abc"))),
    "array of negative size": extension(2, msgspec.msgpack.encode(("f8", (-1,), b""))),
    "no medium": extension(3, b"\x93\x01\x02\x03"),
    "medium of numbers": medium(1, 2, 3, 4, 5, 6),
    "medium without meta": medium("image", "pixels", {}, b"abc", [], ""),
    "medium elsewhere": medium("../../x", "/etc", {}, b"abc", [], ""),
    "media of another": medium("image", "png", {}, None, [["a", "/etc/passwd", 1, 1]], "0" * 64),
    "artifact elsewhere": medium("artifact", "", {"name": "a"}, None, [["../../../escaped", "/etc/passwd", 1, 1]], ""),
    "large image": medium("image", "pixels", {"width": 10**9, "height": 10**9}, b"abc", [], ""),
    "table of no rows": medium("table", "json", {"columns": 5, "rows": "x"}, 7, [], ""),
    "histogram of nothing": medium("histogram", "", {}, None, [], ""),
    "unknown extension": extension(99, bytes(5000)),
    "another time": msgspec.msgpack.encode((-(2**62), 2**63, {"x": 1})),
}


@pytest.mark.system
def test_whatever_a_record_says_commands_end_and_the_others_are_read(project: Path) -> None:
    runs = []
    for number, payload in enumerate(PAYLOADS.values()):
        run = make_run(project / f"{number}")
        append(run, packed(payload) + packed(msgspec.msgpack.encode((1, 5, {"behind": 1})), RECORDS + 1))
        runs.append(run)
    for said in ask(*runs, commands={**FEW, "to": COMMANDS["to"]}).values():
        lines = exported(said["export"])
        assert [line["i"] for line in lines[:RECORDS]] == list(range(RECORDS))
        assert lines[-1]["behind"] == 1
    assert not list(project.parent.parent.rglob("escaped*"))


@pytest.mark.system
def test_whatever_other_frames_say_commands_end(project: Path) -> None:
    strange = [b'{"note":"run_ended"}', b'{"note":"dropped","ring":"x","dropped":{"a":1}}', b'{"note":[]}', b"[" * DEEP]
    update = msgspec.msgpack.encode((1, {"x": 1}))
    strange += [update, msgspec.msgpack.encode((2**63, 5)), b'{"note":"run_ended","status":"x","time_ns":%d}' % 2**80]
    runs = []
    for number, payload in enumerate([*list(PAYLOADS.values())[3:8], *strange]):
        run = make_run(project / f"{number}")
        append(run, b"".join(packed(payload, kind=kind) for kind in (START, CONFIG, SUMMARY, FAILURE, CHECKPOINT)))
        append(run, packed(payload, kind=NOTE), ring=0)
        if number % 2:
            (run / "run.json").unlink()
        runs.append(run)
    for said in ask(*runs, commands=FEW).values():
        assert len(exported(said["export"])) == RECORDS


# What the journal's own bytes promise


@pytest.mark.system
def test_lengths_that_cannot_be_take_neither_memory_nor_time(project: Path) -> None:
    promising = make_run(project / "promising")
    salt = salt_of(journal_id_of(str(promising / "journal")) or b"")
    with (promising / "journal" / "000001.atj").open("ab") as file:
        for length in (1 << 30, (1 << 32) - 1, 1 << 20):
            fields = BatchHeader(length, 77, 0, length, 0, 1)
            unsigned = BATCH_HEADER.pack(BATCH_MAGIC, *fields, zlib.crc32(b"", salt), 0)[:-4]
            file.write(unsigned + zlib.crc32(unsigned, salt).to_bytes(4, "little"))
    many = make_run(project / "many")
    with (many / "journal" / "000001.atj").open("ab") as file:
        file.write((BATCH_MAGIC + b"no batch.") * 100_000)
    numbers = make_run(project / "numbers")
    for name in ("999999999999.atj", "000000.atj", "1.atj", "000002.atj.atj", "-00001.atj"):
        (numbers / "journal" / name).write_bytes(bytes(70))
    for said in ask(promising, many, numbers, commands=FEW).values():
        assert len(exported(said["export"])) == RECORDS
        assert said["verify"].code == 1


@pytest.mark.slow
def test_segment_of_a_terabyte_takes_neither_memory_nor_time(project: Path) -> None:
    run = make_run(project / "theirs")
    os.truncate(run / "journal" / "000001.atj", 1 << 40)
    said = ask(run, commands=FEW)["theirs"]
    assert len(exported(said["export"])) == RECORDS
    assert said["verify"].code == 1


@pytest.mark.system
def test_blocks_that_fit_nothing_take_no_time(project: Path) -> None:
    """Behind a damaged block the next frame is looked for at each place, and here each leads to one that fails at the end."""
    run = make_run(project / "theirs")
    frames = packed(b"", 0, 100) * (8 * BLOCK_BYTES // FRAME_HEADER_BYTES)
    append(run, frames + packed(bytes(1 << 20), 0))
    segment = run / "journal" / segment_name(2)
    with segment.open("r+b") as file:
        file.seek(-(len(frames) // 2), os.SEEK_END)
        file.write(b"!")
    said = ask(run, commands={name: COMMANDS[name] for name in ("verify", "export")})["theirs"]
    assert len(exported(said["export"])) >= RECORDS
    assert said["verify"].code == 1
