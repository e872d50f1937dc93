"""The pages of the formats are exact: what they say is enough to read journals and rings without asynctrack."""

from __future__ import annotations

import json
import re
import struct
import types
from pathlib import Path
from typing import Any

import pytest
from code_blocks import code_blocks
from fixtures.make import described

from asynctrack.journal.layout import SEGMENT_BYTES
from asynctrack.queue import layout
from asynctrack.queue import producer as queue_producer
from asynctrack.queue.ring import Ring

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
V1 = ROOT / "tests" / "fixtures" / "v1"
# The others are damaged, and the page's reader stops at that.
WHOLE = sorted({path.stem for path in (V1 / "expected").glob("*.json")} - {"flipped", "cut", "journalless"})


@pytest.fixture(scope="module")
def reader() -> types.ModuleType:
    """The reader that stands in the page."""
    (block,) = code_blocks(REFERENCE / "journal_format.md")
    module = types.ModuleType("read_journal")
    exec(dict(block.files)["read_journal.py"], vars(module))
    return module


def as_expected(value: Any) -> Any:
    """A value that the page's reader gives, as `fixtures.make.described` has it."""
    if isinstance(value, dict):
        return {str(key): as_expected(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_expected(item) for item in value]
    if isinstance(value, tuple) and value[0] == "array":
        return {"array": value[1], "shape": value[2]}
    if isinstance(value, tuple):
        return {"media": value[1]}
    return described(value)


def without_content(value: Any) -> Any:
    """An expected value without what only our own reader makes of it."""
    if isinstance(value, list):
        return [without_content(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "media" in value and "fields" in value:
        return {"media": value["media"].split()[0]}
    if "array" in value:
        return {"array": value["array"], "shape": value["shape"]}
    return {key: without_content(item) for key, item in value.items()}


@pytest.mark.parametrize("name", WHOLE)
def test_the_reader_of_the_page_reads_the_runs_of_earlier_versions(name: str, reader: types.ModuleType) -> None:
    expected = json.loads((V1 / "expected" / f"{name}.json").read_text())["records"]
    found = [
        [step, time_ns, as_expected(data)]
        for step, time_ns, data in reader.records(V1 / "runs" / "p" / name / "journal")
    ]
    assert found == [[step, time_ns, without_content(data)] for step, time_ns, data in expected]


def test_the_reader_of_the_page_finds_the_kinds_that_it_lists(reader: types.ModuleType) -> None:
    listed = dict(re.findall(r"^\| (\d+) \| (\w+) \| ", (REFERENCE / "journal_format.md").read_text(), re.M)[-10:])
    assert listed == {
        str(kind): name
        for kind, name in (
            (layout.RECORD, "record"), (layout.START, "start"), (layout.CONFIG, "config"), (layout.SUMMARY, "summary"), (layout.FAILURE, "failure"),
            (layout.CHECKPOINT, "checkpoint"), (layout.LABELS, "labels"), (layout.JOIN, "join"), (layout.NOTE, "note"), (layout.PAD, "pad"),
        )
    }  # fmt: skip
    kinds = {kind for name in WHOLE for _, _, kind, _ in reader.frames_of(V1 / "runs" / "p" / name / "journal")}
    assert {layout.RECORD, layout.START, layout.CHECKPOINT, layout.NOTE} <= kinds
    assert f"closed at {SEGMENT_BYTES >> 20} MiB" in (REFERENCE / "journal_format.md").read_text()


def test_the_words_of_a_ring_are_those_of_the_page(tmp_path: Path) -> None:
    rows = re.findall(r"^\| ([\d, to]+) \| `(\w+)` \| ", (REFERENCE / "ring_format.md").read_text(), re.M)
    assert {name: int(re.match(r"\d+", word)[0]) for word, name in rows} == {  # type: ignore[index]
        name: getattr(layout, name) for _, name in rows
    }
    assert len(rows) == 22

    producer = queue_producer.create(
        Ring.create(str(tmp_path / "a.ring"), 65536, {"run": "/runs/p/first"}), lambda: None
    )
    assert producer.put(b"\x93\x01\x02\x80")
    data = (tmp_path / "a.ring").read_bytes()
    words = struct.unpack("<1024Q", data[:8192])
    assert data[:8] == b"ATRING\0\1"
    assert words[1] == 1
    assert data[1024 : 1024 + words[6]] == b"run=/runs/p/first"
    assert words[8] == 24, "16 bytes of header and 4 of payload, padded"
    length, dropped, number_and_kind = struct.unpack_from("<IIQ", data, 8192 + words[16] % words[2])
    assert (length, dropped, number_and_kind) == (4, 0, 0)
    assert data[8192 + 16 : 8192 + 20] == b"\x93\x01\x02\x80"
