"""A journal of 4 KiB, cut at every byte, every bit flipped, every tail zeroed: never a crash, never a wrong frame."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from asynctrack.journal import frames, layout, reader
from asynctrack.journal.layout import segment_name
from asynctrack.journal.reader import Damage, Reader
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import CONFIG, KIND_SHIFT, LOST_SHIFT, RECORD, frame_size

Found = list[tuple[int, bytes]]


class Golden(NamedTuple):
    """An unharmed journal: its segments, and what is in it in the order of the reader."""

    directory: Path
    segments: list[bytes]
    frames: Found


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 256 bytes, so that a small journal has batches of many."""
    for module in (layout, frames, reader):
        monkeypatch.setattr(module, "BLOCK_BYTES", 256)


@pytest.fixture
def golden(shm: Path, small_blocks: None) -> Golden:
    """Two segments: batches of one block and of many, frames across blocks, drops, zeros, two rings."""
    directory, ends, numbers = shm / "journal", {1: 0, 2: 0}, {1: 0, 2: 10}
    for batches in ([(1, 1), (2, 9)], [(1, 12), (2, 2), (1, 1)]):
        journal = Writer(directory)
        for ring, count in batches:
            batch = b""
            for number in range(numbers[ring], numbers[ring] + count):
                batch += frame(number, b"config", CONFIG) if number % 8 == 5 else b""
                batch += frame(number, bytes(96) if number % 4 == 3 else b"%d:" % number * (number % 9 + 48))
            numbers[ring] += count
            journal.append(ring, ends[ring], ends[ring] + len(batch), 0, batch)
            ends[ring] += len(batch)
        journal.close()
    found, damage = read(directory)
    assert (len(found), damage) == (28, [])
    segments = [path.read_bytes() for path in sorted(directory.iterdir())]
    assert 3500 < sum(map(len, segments)) < 4500
    return Golden(directory, segments, found)


def frame(number: int, payload: bytes, kind: int = RECORD) -> bytes:
    lost = number // 8
    first, second = len(payload) + (lost << LOST_SHIFT), number + lost + (kind << KIND_SHIFT)
    header = first.to_bytes(8, "little") + second.to_bytes(8, "little")
    return (header + payload).ljust(frame_size(len(payload)), b"\0")


def read(directory: Path) -> tuple[Found, list[Damage]]:
    journal = Reader(directory)
    found = [(batch.header.ring, bytes(found.payload)) for batch in journal for found in batch.frames()]
    journal.close()
    return found, journal.damage


def is_part(found: Found, of: Found) -> bool:
    """Whether all that was found was written, in that order."""
    written = iter(of)
    return all(one in written for one in found)


def recover(golden: Golden, before: Found) -> None:
    """A writer that opens what is left keeps all that could be read, and appends."""
    journal = Writer(golden.directory)
    more = frame(99, b"appended")
    end = journal.ends.get(1, 0)
    journal.append(1, end, end + len(more), 0, more)
    journal.close()
    assert read(golden.directory)[0] == [*before, (1, b"appended")]


@pytest.mark.system
@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("number", [1, 2])
def test_every_flipped_bit_is_found(golden: Golden, number: int, bit: int) -> None:
    content, is_last = golden.segments[number - 1], number == len(golden.segments)
    file = os.open(golden.directory / segment_name(number), os.O_RDWR)
    for offset, byte in enumerate(content):
        os.pwrite(file, bytes([byte ^ 1 << bit]), offset)
        found, damage = read(golden.directory)
        os.pwrite(file, content[offset : offset + 1], offset)
        assert is_part(found, golden.frames), (offset, bit)
        assert damage or (is_last and found == golden.frames[: len(found)]), (offset, bit)
    os.close(file)
    assert read(golden.directory) == (golden.frames, [])


def cut(content: bytes, size: int) -> bytes:
    return content[:size]


def zeroed(content: bytes, size: int) -> bytes:
    return content[:size].ljust(len(content), b"\0")


@pytest.mark.system
@pytest.mark.parametrize("harm", [cut, zeroed])
def test_every_torn_tail_of_the_last_segment_costs_only_that(
    golden: Golden, harm: Callable[[bytes, int], bytes]
) -> None:
    content = golden.segments[-1]
    path = golden.directory / segment_name(len(golden.segments))
    for size in range(len(content)):
        path.write_bytes(harm(content, size))
        found, damage = read(golden.directory)
        assert is_part(found, golden.frames)
        if harm is cut or not damage:
            assert found == golden.frames[: len(found)]
            assert damage == []
        recover(golden, found)
        (golden.directory / segment_name(len(golden.segments) + 1)).unlink(missing_ok=True)


@pytest.mark.system
@pytest.mark.parametrize("harm", [cut, zeroed])
def test_every_torn_tail_of_the_first_segment_is_reported(golden: Golden, harm: Callable[[bytes, int], bytes]) -> None:
    content = golden.segments[0]
    path = golden.directory / segment_name(1)
    for size in range(len(content)):
        path.write_bytes(harm(content, size))
        found, damage = read(golden.directory)
        assert is_part(found, golden.frames)
        assert damage or harm(content, size) == content
