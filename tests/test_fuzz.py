"""What comes from outside is anything: journals, frames, run.json, cursors, configurations. Only our own errors, and never what was not written.

By default some hundred examples of each; behind the mark "slow" ten thousand.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import pytest
from delivery_support import journal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import asynctrack
from asynctrack import cli
from asynctrack.errors import AsynctrackError, InvalidSettings
from asynctrack.journal import manifest
from asynctrack.journal.cursor import Cursor, cursor_path, load_cursor
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import pack_segment_header, segment_name
from asynctrack.journal.manifest import UNREADABLE, Manifest
from asynctrack.journal.reader import Reader
from asynctrack.journal.tally import Tally
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import KIND_SHIFT, RECORD, frame_size
from asynctrack.records.codec import Record, decode_record, decode_update, flatten, light, media_in, to_json

KEPT: Final = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
few = settings(max_examples=100, deadline=None, suppress_health_check=KEPT)
many = settings(few, max_examples=10_000, phases=[Phase.explicit, Phase.generate, Phase.shrink])

# Journals

ID: Final = bytes(range(16))


def packed(number: int, payload: bytes, kind: int = RECORD) -> bytes:
    header = len(payload).to_bytes(8, "little") + (number + (kind << KIND_SHIFT)).to_bytes(8, "little")
    return (header + payload).ljust(frame_size(len(payload)), b"\0")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two segments of a real journal, of two rings."""
    directory, ends, number = tmp_path_factory.mktemp("golden") / "journal", {1: 0, 2: 0}, 0
    for _ in range(2):
        writer = Writer(directory)
        for ring in (1, 2, 1):
            frames = b"".join(packed(number + i, f"{number + i}:".encode() * 9) for i in range(4))
            writer.append(ring, ends[ring], ends[ring] + len(frames), 0, frames)
            ends[ring] += len(frames)
            number += 4
        writer.close()
    return [path.read_bytes() for path in sorted(directory.iterdir())]


@contextlib.contextmanager
def directory_of(segments: list[bytes]) -> Iterator[Path]:
    """A journal with these segments."""
    with TemporaryDirectory() as folder:
        for number, content in enumerate(segments, start=1):
            Path(folder, segment_name(number)).write_bytes(content)
        yield Path(folder)


def read(directory: Path) -> tuple[list[bytes], bool]:
    """The payloads that are read, and whether damage was told."""
    with contextlib.closing(Reader(directory)) as reader:
        batches: list[FrameBatch] = list(reader)
        found = [bytes(frame.payload) for batch in batches for frame in batch.frames()]
        tally = Tally(directory)
        tally.update()
        assert tally.records() >= 0
        tally.close()
        return found, bool(reader.damage)


def check_recovery(directory: Path) -> None:
    """What can be read is kept by the next writer, and what it appends is found behind it."""
    before, _ = read(directory)
    writer = Writer(directory)
    end = writer.ends.get(7, 0)
    frames = packed(1, b"appended")
    writer.append(7, end, end + len(frames), 0, frames)
    writer.close()
    after, _ = read(directory)
    assert after == [*before, b"appended"]


headers = st.booleans()


def check_any_bytes(segments: list[tuple[bool, bytes]]) -> None:
    made = [(pack_segment_header(at, ID, 0) if whole else b"") + rest for at, (whole, rest) in enumerate(segments, 1)]
    with directory_of(made) as directory:
        found, _ = read(directory)
        assert found == []  # no sum is right by chance
        check_recovery(directory)


any_segments = st.lists(st.tuples(headers, st.binary(max_size=300)), min_size=1, max_size=3)


@pytest.mark.system
@few
@given(any_segments)
def test_bytes_that_are_no_journal_are_read_as_none(segments: list[tuple[bool, bytes]]) -> None:
    check_any_bytes(segments)


@pytest.mark.slow
@pytest.mark.timeout(900)
@many
@given(any_segments)
def test_bytes_that_are_no_journal_are_read_as_none_longer(segments: list[tuple[bool, bytes]]) -> None:
    check_any_bytes(segments)


# Where, how much, from where, and a byte.
Harm = tuple[str, int, int, int, int]
harms = st.lists(
    st.tuples(
        st.sampled_from(["flip", "delete", "insert", "copy", "zero", "cut"]),
        st.integers(0, 1), st.integers(0, 1200), st.integers(1, 400), st.integers(0, 1200),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def harmed(segments: list[bytes], harms: list[Harm]) -> list[bytes]:
    made = list(map(bytearray, segments))
    for what, which, at, size, source in harms:
        content = made[which]
        at = min(at, len(content))
        if what == "flip":
            for offset in range(at, min(at + size % 3 + 1, len(content))):
                content[offset] ^= 1 + source % 255
        elif what == "delete":
            del content[at : at + size]
        elif what == "insert":
            content[at:at] = bytes([source % 256]) * (size % 50)
        elif what == "copy":  # of the same journal: stale bytes, whole batches twice
            content[at:at] = made[source % 2][source : source + size]
        elif what == "zero":
            content[at : at + size] = bytes(len(content[at : at + size]))
        else:
            del content[at:]
    return list(map(bytes, made))


def check_harmed(golden: list[bytes], harms: list[Harm]) -> None:
    with directory_of(golden) as directory:
        written, damaged = read(directory)
        assert len(written) == 24
        assert not damaged
    made = harmed(golden, harms)
    with directory_of(made) as directory:
        found, damaged = read(directory)
        assert set(found) <= set(written)
        assert len(set(found)) == len(found)  # what is there twice is read once
        if made != golden and not damaged:  # then only the tail has gone
            assert found == written[: len(found)]
        check_recovery(directory)


@pytest.mark.system
@few
@given(harms)
def test_harmed_journal_gives_what_was_written_and_says_what_is_missing(golden: list[bytes], harms: list[Harm]) -> None:
    check_harmed(golden, harms)


@pytest.mark.slow
@pytest.mark.timeout(900)
@many
@given(harms)
def test_harmed_journal_gives_what_was_written_and_says_what_is_missing_longer(
    golden: list[bytes], harms: list[Harm]
) -> None:
    check_harmed(golden, harms)


# Frames

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.sampled_from([0, -1, 10**9])
leaves = st.none() | st.booleans() | numbers | st.text(max_size=20) | st.binary(max_size=20)
extensions = st.builds(msgspec.msgpack.Ext, st.sampled_from([1, 2, 3, 4, -1]), st.binary(max_size=30))
words = st.sampled_from(
    ["image", "table", "histogram", "artifact", "html", "pixels", "png", "width", "height", "columns", "rows", "counts", "edges", "num_bins", "f4",
     "i8", "zz", "", "../x", "name", "caption"]
)  # fmt: skip
values = st.recursive(
    leaves | words | extensions,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(words | leaves.filter(lambda key: not isinstance(key, float)), inner, max_size=5)
        | st.builds(lambda code, value: msgspec.msgpack.Ext(code, msgspec.msgpack.encode(value)), st.sampled_from([2, 3]), inner)
        | st.builds(lambda *parts: msgspec.msgpack.Ext(3, msgspec.msgpack.encode(parts)), words, words, inner, inner, st.just([]), words)
        | st.builds(lambda *parts: msgspec.msgpack.Ext(2, msgspec.msgpack.encode(parts)), words, st.lists(st.integers(-2, 9), max_size=3), st.binary(max_size=40))
    ),
    max_leaves=12,
)  # fmt: skip
payloads = st.binary(max_size=60) | st.builds(
    lambda time, step, data: msgspec.msgpack.encode((time, step, data)), leaves, leaves, values
)


def check_payload(payload: bytes) -> None:
    """It is decoded to what can be shown, or refused."""
    try:
        record: Record | None = decode_record(payload, 1)
    except UNREADABLE:
        record = None
    if record is not None:
        assert isinstance(record.data, dict)
        assert isinstance(record.step, int)
        assert isinstance(record.time_ns, int)
        dict(flatten(record.data))
        msgspec.json.encode(to_json(record.data))
        light(record.data)
        for media in media_in(record.data):
            assert media.path is None or (media.path.startswith("media/") and ".." not in media.path)
            repr(media)
    with contextlib.suppress(*UNREADABLE):
        decode_update(payload)


@pytest.mark.system
@settings(few, max_examples=400)
@given(payloads)
def test_any_payload_is_decoded_or_refused(payload: bytes) -> None:
    check_payload(payload)


@pytest.mark.slow
@pytest.mark.timeout(900)
@many
@given(payloads)
def test_any_payload_is_decoded_or_refused_longer(payload: bytes) -> None:
    check_payload(payload)


# run.json and cursors

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
positions = st.lists(
    st.integers(-(2**70), 2**70) | st.integers(-1, 400) | st.floats() | st.text(max_size=3), min_size=3, max_size=3
)
texts = st.sampled_from(
    [
        "",
        "finished",
        "running",
        "9999-12-31T23:59:59+00:00",
        "0001-01-01",
        "../..",
        "\x00",
        "\x1b[2J",
        "jsonl",
        "${env:HOME}",
    ]
)


def fields_of(kind: type) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields of a struct, with anything in them, or with what is nearly right."""
    nearly = st.dictionaries(
        texts,
        texts
        | st.integers()
        | st.dictionaries(st.sampled_from(["kind", "file", "execution", "seal", "url"]), plain | texts),
    )
    one = st.sampled_from([field.name for field in msgspec.structs.fields(kind)])
    return st.dictionaries(one, plain | positions | texts | st.integers(-(2**70), 2**70) | nearly, max_size=4)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = journal(tmp_path_factory.mktemp("runs") / "p" / "theirs", 5).path
    manifest.save(
        run,
        Manifest(id="theirs", name="theirs", project="p", created_at="2026-11-21T10:00:00+00:00", status="finished"),
    )
    (run / "cursors").mkdir()
    return run


def say(*arguments: str) -> int:
    """What a command ends with; it may print what it likes."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        return cli.main(arguments)


@pytest.fixture
def whole(theirs: Path) -> Iterator[dict[str, Any]]:
    before = (theirs / "run.json").read_bytes()
    yield msgspec.json.decode(before)
    (theirs / "run.json").write_bytes(before)
    cursor_path(theirs, "jsonl").unlink(missing_ok=True)


def check_commands(run: Path) -> None:
    for arguments in (["show", str(run)], ["show", str(run), "--json"], ["ls", str(run.parent)], ["verify", str(run)]):
        assert say(*arguments) in (0, 1), arguments


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::asynctrack.errors.DamagedJournal")
@settings(few, max_examples=60)
@given(fields=fields_of(Manifest))
def test_any_run_json_is_shown_or_refused(theirs: Path, whole: dict[str, Any], fields: dict[str, Any]) -> None:
    (theirs / "run.json").write_text(json.dumps({**whole, **fields}))
    check_commands(theirs)
    with contextlib.suppress(AsynctrackError):
        asynctrack.open_run(theirs).columns()


@pytest.mark.system
@settings(few, max_examples=60)
@given(fields=fields_of(Cursor) | plain)
def test_any_cursor_is_taken_or_begun_anew(theirs: Path, whole: dict[str, Any], fields: Any) -> None:
    (theirs / "run.json").write_bytes(msgspec.json.encode({**whole, "backends": {"jsonl": {"kind": "jsonl"}}}))
    cursor_path(theirs, "jsonl").write_text(json.dumps(fields))
    assert min(load_cursor(theirs, "jsonl").position) >= 0
    check_commands(theirs)


# Configurations

odd = st.sampled_from([
    "${env:HOME}", "${env:NOT_THERE}", "${env:NOT_THERE,x}", "${env:${env:HOME}}", "${env:", "}", "${oc.env:A,${env:A}}", "${" * 200, "disabled", "jsonl",
    "a.b", ".", "..", "a..b", ".a", "os.system", "asynctrack.JSONLines", "asynctrack.nothing", "/", "../x", "\0", "\ud800", "9" * 5000, "x" * 100_000,
])  # fmt: skip
names = st.sampled_from(
    ["project", "dir", "config", "backends", "mode", "worker", "linger_s", "queue_bytes", "tags", "notes", "settings", "kind", "_target_", "file", "flush_s", "jsonl",
     "tensorboard", "http", "mlflow", "name", "group", "references", "max_records_s"]
)  # fmt: skip
settings_ = st.recursive(
    plain | odd | st.builds(lambda: 10**5000) | st.just(float("nan")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | odd | st.integers() | st.none(), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


def check_configuration(tree: Any) -> None:
    with contextlib.suppress(AsynctrackError):
        asynctrack.Tracker.from_config(tree)


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")  # what a module that is named has to say when it is imported
@few
@given(st.dictionaries(names | odd, settings_, max_size=6))
def test_any_configuration_is_taken_or_refused_in_our_words(tree: dict[str, Any]) -> None:
    check_configuration({"project": "p", **tree})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@many
@given(st.dictionaries(names | odd, settings_, max_size=6))
def test_any_configuration_is_taken_or_refused_in_our_words_longer(tree: dict[str, Any]) -> None:
    check_configuration({"project": "p", **tree})


LAUGHS: Final = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
FILES: Final = {
    "laughs.yaml": f"project: p\nconfig:\n  {LAUGHS.replace(chr(10), chr(10) + '  ')}",
    "laughs in a backend.yaml": f"project: p\nbackends:\n  jsonl:\n    {LAUGHS.replace(chr(10), chr(10) + '    ')}",
    "itself.yaml": "project: p\nconfig: &a {b: *a}\n",
    "its list.yaml": "project: p\nbackends: &a [*a]\n",
    "deep.yaml": "project: p\nconfig: " + "[" * 5000 + "]" * 5000,
    "deep.json": '{"project":"p","config":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep.toml": "project = 'p'\nconfig = " + "[" * 5000 + "]" * 5000,
    "code.yaml": "project: !!python/object/apply:os.system ['false']\n",
    "digits.json": '{"project":"p","linger_s":' + "9" * 100_000 + "}",
    "digits.yaml": "project: p\nqueue_bytes: " + "9" * 100_000,
    "null.json": '{"project":"a\\u0000b","dir":"a\\u0000b"}',
}


@pytest.mark.system
@pytest.mark.parametrize("name", FILES)
def test_file_that_is_made_to_hang_its_reader_is_refused(name: str, tmp_path: Path) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(FILES[name])
    with pytest.raises(AsynctrackError):
        asynctrack.Tracker.from_config(tmp_path / name)


def test_mapping_that_holds_itself_is_refused() -> None:
    tree: dict[str, Any] = {"project": "p"}
    tree["config"] = {"again": tree}
    with pytest.raises(InvalidSettings, match="nested"):
        asynctrack.Tracker.from_config(tree)
