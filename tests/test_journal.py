"""The journal: what is appended is read, in order and once, whatever disks, crashes and other processes do to it."""

from __future__ import annotations

import contextlib
import errno
import inspect
import itertools
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrack.errors import UnsupportedVersion
from asynctrack.journal import layout, writer
from asynctrack.journal.layout import (
    BLOCK_BYTES,
    HEADER_BYTES,
    BatchHeader,
    Position,
    pack_batch,
    pack_segment_header,
    salt_of,
    segment_name,
)
from asynctrack.journal.reader import Reader, journal_id_of, segments
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import CONFIG, KIND_SHIFT, LOST_SHIFT, PAD, RECORD, frame_size

pytestmark = pytest.mark.usefixtures("version")

DEADLINE_S = 20.0  # arbitrary: far more than any of these needs


def frame(payload: bytes, number: int, kind: int = RECORD, lost: int = 0) -> bytes:
    header = (len(payload) + (lost << LOST_SHIFT)).to_bytes(8, "little") + (number + (kind << KIND_SHIFT)).to_bytes(
        8, "little"
    )
    return (header + payload).ljust(frame_size(len(payload)), b"\0")


class Source:
    """A ring as the writer sees it: batches of frames, one behind the other."""

    def __init__(self, journal: Writer, ring: int = 1) -> None:
        self.journal = journal
        self.ring = ring
        self.end = journal.ends.get(ring, 0)
        self.number = 0

    def append(self, *payloads: bytes) -> None:
        frames = b"".join(frame(payload, self.number + i) for i, payload in enumerate(payloads))
        self.journal.append(self.ring, self.end, self.end + len(frames), self.number, frames)
        self.number += len(payloads)
        self.end += len(frames)


def payloads(batches: Iterable[Any]) -> list[bytes]:
    return [bytes(frame.payload) for batch in batches for frame in batch.frames()]


def read(directory: Path) -> list[bytes]:
    """What an undamaged journal holds."""
    reader = Reader(directory)
    found = payloads(reader)
    reader.close()
    assert reader.damage == []
    return found


def read_damaged(directory: Path) -> tuple[list[bytes], list[tuple[str, str]]]:
    """What a journal holds, and what it says is lost: segment and reason."""
    reader = Reader(directory)
    found = payloads(reader)
    reader.close()
    return found, [(Path(damage.path).name, damage.found) for damage in reader.damage]


def words(*numbers: int) -> list[bytes]:
    return [b"record %d" % number for number in numbers]


def written(directory: Path, *batches: list[bytes], segment_bytes: int = 1 << 20) -> None:
    journal = Writer(directory, segment_bytes=segment_bytes)
    source = Source(journal)
    for batch in batches:
        source.append(*batch)
    journal.close()


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def segment(directory: Path, number: int) -> Path:
    return directory / segment_name(number)


def open_below(directory: Path) -> list[int]:
    """Descriptors of this process that are open in a directory."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            if directory in link.readlink().parents:
                found.append(int(link.name))
    return found


@pytest.fixture(autouse=True)
def close_all(tmp_path: Path) -> Iterator[None]:
    yield
    for descriptor in open_below(tmp_path):
        os.close(descriptor)


@pytest.fixture
def failing_fsync(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes as many fsyncs fail as the list has items."""
    failures: list[int] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        if failures:
            failures.pop()
            raise OSError(errno.EIO, "injected")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return failures


class TestRoundTrip:
    def test_what_is_appended_is_read_in_order(self, tmp_path: Path) -> None:
        written(tmp_path, words(1, 2), words(3), [os.urandom(size) for size in range(50)])
        assert read(tmp_path)[:3] == words(1, 2, 3)
        assert [len(payload) for payload in read(tmp_path)[3:]] == list(range(50))

    def test_a_frame_keeps_its_number_kind_and_the_count_of_drops(self, tmp_path: Path) -> None:
        journal = Writer(tmp_path)
        frames = frame(b"a", 7) + frame(b"c", 9, CONFIG, 1) + frame(b"", 9, PAD, 1) + frame(b"b", 9, RECORD, 1)
        journal.append(5, 0, len(frames), 7, frames)
        [batch] = Reader(tmp_path)
        assert batch.header[:5] == (len(frames), 5, 0, len(frames), 7)
        assert [(f.number, f.kind, f.lost, bytes(f.payload)) for f in batch.frames()] == [
            (7, RECORD, 0, b"a"),
            (9, CONFIG, 1, b"c"),
            (9, RECORD, 1, b"b"),
        ]
        assert [f.kind for f in batch.frames(skip_records=True)] == [CONFIG]

    def test_reading_goes_on_from_a_position_and_a_frame(self, tmp_path: Path) -> None:
        written(tmp_path, words(1, 2), words(3, 4), words(5), segment_bytes=200)
        records = words(1, 2, 3, 4, 5)
        for batch in Reader(tmp_path):
            here, after = payloads([batch]), payloads(Reader(tmp_path, batch.after))
            assert (here + after) == records[-len(here + after) :]
            assert payloads(Reader(tmp_path, Position(batch.segment, batch.offset))) == here + after
            for i, inner in enumerate(batch.frames()):
                assert [bytes(f.payload) for f in batch.frames(inner.end)] == here[i + 1 :]

    @pytest.mark.parametrize("max_bytes", [1, 24, 100, 1 << 20])
    def test_cuts_of_a_batch_have_all_its_frames(self, tmp_path: Path, max_bytes: int) -> None:
        journal = Writer(tmp_path)
        frames = b"".join(frame(b"x" * number, number, (RECORD, CONFIG, PAD)[number % 3]) for number in range(30))
        journal.append(1, 0, len(frames), 0, frames)
        [batch] = Reader(tmp_path)
        records, others, at = [], [], 0
        while at < batch.header.length:
            some, more, after = batch.take(at, max_bytes, 1 << 30)
            assert after > at
            records += [(number, RECORD, bytes(payload)) for number, payload in some]
            others += [(f.number, f.kind, bytes(f.payload)) for f in more]
            at = after
        assert sorted(records + others) == [(f.number, f.kind, bytes(f.payload)) for f in batch.frames()]

    def test_rings_are_interleaved_as_they_were_appended(self, tmp_path: Path) -> None:
        journal = Writer(tmp_path)
        rings = [Source(journal, ring) for ring in (1, 2, 3)]
        for number, source in zip(range(9), itertools.cycle(rings)):
            source.append(b"%d of ring %d" % (number, source.ring))
        assert read(tmp_path) == [b"%d of ring %d" % (number, number % 3 + 1) for number in range(9)]
        assert journal.ends == {source.ring: source.end for source in rings}

    def test_headers_can_be_read_alone(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2, 3), segment_bytes=200)
        whole, headers = list(Reader(tmp_path)), list(Reader(tmp_path, bodies=False))
        assert [batch.header for batch in whole] == [batch.header for batch in headers]
        assert payloads(headers) == []

    def test_a_batch_of_many_blocks(self, tmp_path: Path) -> None:
        batch = [os.urandom(1000) for _ in range(200)]
        written(tmp_path, batch)
        assert read(tmp_path) == batch

    def test_files_are_nobodys_else_to_write_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            written(tmp_path / "journal", words(1))
        finally:
            os.umask(before)
        paths = tmp_path / "journal", segment(tmp_path / "journal", 1)
        assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o755, 0o644]

    def test_a_journal_that_is_not_there_is_empty(self, tmp_path: Path) -> None:
        assert read(tmp_path / "nowhere") == []
        assert read(tmp_path) == []

    def test_other_files_in_the_directory_are_no_segments(self, tmp_path: Path) -> None:
        written(tmp_path, words(1))
        for name in ("1.atj", "000002.atj.part", "notes.txt", "٠٠٠٠٠٢.atj"):
            (tmp_path / name).write_bytes(b"x" * 100)
        assert segments(str(tmp_path)) == [1]
        assert read(tmp_path) == words(1)


class TestSegments:
    def test_a_full_segment_is_followed_by_the_next(self, tmp_path: Path) -> None:
        written(tmp_path, *([b"x" * 50] for _ in range(20)), segment_bytes=400)
        assert segments(str(tmp_path)) == list(range(1, 11))
        assert all(path.stat().st_size <= 400 for path in tmp_path.iterdir())
        assert read(tmp_path) == [b"x" * 50] * 20

    def test_a_batch_larger_than_a_segment_has_one_of_its_own(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), [b"x" * 1000], words(2), segment_bytes=400)
        assert segments(str(tmp_path)) == [1, 2, 3]
        assert read(tmp_path) == [*words(1), b"x" * 1000, *words(2)]

    def test_a_missing_segment_is_reported(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2), words(3), segment_bytes=1)
        segment(tmp_path, 2).unlink()
        assert read_damaged(tmp_path) == (words(1, 3), [("000002.atj", "the segment is missing")])

    def test_missing_first_segments_are_reported(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2), words(3), segment_bytes=1)
        segment(tmp_path, 1).unlink()
        segment(tmp_path, 2).unlink()
        assert read_damaged(tmp_path) == (words(3), [("000001.atj", "the segment and 1 after it are missing")])

    def test_a_segment_of_an_absurd_number_is_no_hang(self, tmp_path: Path) -> None:
        written(tmp_path, words(1))
        segment(tmp_path, 1).rename(segment(tmp_path, 999_999_999_999))
        assert read_damaged(tmp_path)[0] == words(1)

    def test_a_missing_segment_at_the_position_is_reported(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2), words(3), segment_bytes=1)
        segment(tmp_path, 2).unlink()
        reader = Reader(tmp_path, Position(2, 500))
        assert payloads(reader) == words(3)
        assert len(reader.damage) == 1

    def test_a_segment_of_another_journal_is_not_taken(self, tmp_path: Path) -> None:
        written(tmp_path / "other", words(7), words(8), segment_bytes=1)
        written(tmp_path / "own", words(1), words(2), words(3), segment_bytes=1)
        segment(tmp_path / "own", 2).write_bytes(segment(tmp_path / "other", 2).read_bytes())
        found, damage = read_damaged(tmp_path / "own")
        assert (found, damage) == (words(1, 3), [("000002.atj", "the segment is another journal's")])

    def test_another_journals_last_segment_is_neither_taken_nor_touched(self, tmp_path: Path) -> None:
        written(tmp_path / "other", words(7), words(8), segment_bytes=1)
        written(tmp_path / "own", words(1), segment_bytes=1)
        foreign = segment(tmp_path / "other", 2).read_bytes()
        segment(tmp_path / "own", 2).write_bytes(foreign)
        Source(Writer(tmp_path / "own")).append(*words(2))
        assert segment(tmp_path / "own", 2).read_bytes() == foreign
        found, damage = read_damaged(tmp_path / "own")
        assert (found, len(damage)) == (words(1, 2), 1)

    def test_stale_batches_of_another_journal_are_not_taken(self, tmp_path: Path) -> None:
        written(tmp_path / "other", words(7), words(8))
        written(tmp_path / "own", words(1))
        with segment(tmp_path / "own", 1).open("ab") as file:
            file.write(segment(tmp_path / "other", 1).read_bytes()[HEADER_BYTES:])
        assert read(tmp_path / "own") == words(1)
        Source(Writer(tmp_path / "own")).append(*words(2))
        assert read(tmp_path / "own") == words(1, 2)

    def test_a_newer_version_is_refused_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layout, "VERSION", 2)
        written(tmp_path, words(1))
        for use in (lambda: Reader(tmp_path).next(), lambda: Writer(tmp_path)):
            with pytest.raises(UnsupportedVersion, match=r"000001\.atj has format version 2, .* up to 1"):
                use()


class TestLiveReader:
    def test_it_follows_batches_and_segments(self, tmp_path: Path) -> None:
        journal, reader = Writer(tmp_path, segment_bytes=300), Reader(tmp_path)
        source = Source(journal)
        assert reader.next() is None
        for number in range(20):
            source.append(*words(number))
            assert payloads([reader.next()]) == words(number)
            assert reader.next() is None

    def test_it_follows_a_writer_on_another_thread(self, tmp_path: Path) -> None:
        def write() -> None:
            journal = Writer(tmp_path, segment_bytes=4000)
            source = Source(journal)
            for number in range(1000):
                source.append(*words(number))
                if number % 100 == 0:
                    journal.sync()
            journal.close()

        thread = threading.Thread(target=write)
        reader, found, deadline = Reader(tmp_path), [], time.monotonic() + DEADLINE_S
        thread.start()
        while len(found) < 1000 and time.monotonic() < deadline:
            found += payloads(reader)
        thread.join()
        assert found == words(*range(1000))
        assert reader.damage == []

    def test_a_torn_batch_is_waited_for(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2))
        whole = segment(tmp_path, 1).read_bytes()
        for size in range(len(whole) - 92, len(whole)):
            segment(tmp_path, 1).write_bytes(whole[:size])
            reader = Reader(tmp_path)
            assert payloads(reader) == words(1)
            segment(tmp_path, 1).write_bytes(whole)
            assert payloads(reader) == words(2)
            assert reader.damage == []

    def test_a_segment_that_could_not_be_begun_does_not_end_the_one_before(self, tmp_path: Path) -> None:
        """The writer gives a new segment up when the disk is full, and another ring's smaller batch may still fit."""
        journal, reader = Writer(tmp_path), Reader(tmp_path)
        source = Source(journal)
        source.append(*words(1))
        segment(tmp_path, 2).touch()
        assert payloads(reader) == words(1)
        segment(tmp_path, 2).unlink()
        source.append(*words(2))
        assert payloads(reader) == words(2)
        assert reader.damage == []

    def test_the_directory_is_listed_at_its_begin_and_end_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written(tmp_path, *(words(number) for number in range(50)), segment_bytes=200)
        assert len(segments(str(tmp_path))) > 20
        listed, real = [], os.listdir

        def listdir(path: Any) -> list[str]:
            listed.append(path)
            return real(path)

        monkeypatch.setattr(os, "listdir", listdir)
        assert read(tmp_path) == words(*range(50))
        assert len(listed) <= 3  # the first segment, the journal's id, the end

    def test_a_journal_that_is_away_for_a_moment_is_not_taken_for_another(self, tmp_path: Path) -> None:
        written(tmp_path / "journal", words(1), words(2), segment_bytes=1)
        reader = Reader(tmp_path / "journal")
        assert reader._open()
        (tmp_path / "journal").rename(tmp_path / "away")
        assert reader.next() is None
        (tmp_path / "away").rename(tmp_path / "journal")
        assert payloads(reader) == words(1, 2)
        assert reader.damage == []


class TestRecovery:
    def test_a_torn_tail_is_cut_and_the_next_segment_begins(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2))
        whole = segment(tmp_path, 1).read_bytes()
        segment(tmp_path, 1).write_bytes(whole[:-5])
        live = Reader(tmp_path)
        assert payloads(live) == words(1)
        journal = Writer(tmp_path)
        assert journal.ends == {1: frame_size(8)}
        Source(journal).append(*words(3))
        assert read(tmp_path) == words(1, 3)
        assert segments(str(tmp_path)) == [1, 2]
        assert whole.startswith(segment(tmp_path, 1).read_bytes())
        assert payloads(live) == words(3)

    def test_an_undamaged_segment_is_not_touched(self, tmp_path: Path) -> None:
        written(tmp_path, words(1))
        before = segment(tmp_path, 1).read_bytes()
        written(tmp_path, words(2))
        assert segment(tmp_path, 1).read_bytes() == before
        assert read(tmp_path) == words(1, 2)

    @pytest.mark.parametrize("size", [0, 1, HEADER_BYTES - 1, HEADER_BYTES])
    def test_a_last_segment_without_a_batch_costs_nothing(self, tmp_path: Path, size: int) -> None:
        written(tmp_path, words(1), words(2), segment_bytes=1)
        segment(tmp_path, 2).write_bytes(segment(tmp_path, 2).read_bytes()[:size])
        assert read(tmp_path) == words(1)
        journal = Writer(tmp_path)
        assert journal.ends == {1: frame_size(8)}
        Source(journal).append(*words(3))
        assert read(tmp_path) == words(1, 3)

    @pytest.mark.parametrize("size", [HEADER_BYTES, 5000, 200_000])
    @pytest.mark.parametrize("number", [1, 2])
    def test_a_last_segment_of_zeros_never_was(self, tmp_path: Path, size: int, number: int) -> None:
        """A power cut leaves a file's length and not what was in it."""
        written(tmp_path, *([words(1)] * (number - 1)))
        segment(tmp_path, number).write_bytes(bytes(size))
        Source(Writer(tmp_path)).append(*words(number))
        assert read(tmp_path) == words(*range(1, number + 1))
        assert segments(str(tmp_path)) == list(range(1, number + 1))

    def test_last_batches_of_which_nothing_is_whole_are_cut(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2), words(3))
        whole = segment(tmp_path, 1).read_bytes()
        size = (len(whole) - HEADER_BYTES) // 3
        frames = frame_size(8)
        lost = whole[: -size - frames] + bytes(frames) + whole[-size:-frames] + bytes(frames)
        segment(tmp_path, 1).write_bytes(lost)
        assert read_damaged(tmp_path)[0] == words(1)
        journal = Writer(tmp_path)
        assert journal.ends == {1: frames}  # what is still in the ring is journaled again
        assert journal.found == Position(1, len(whole) - 2 * size)
        Source(journal).append(*words(4))
        assert read(tmp_path) == words(1, 4)

    def test_a_damaged_batch_in_the_middle_stays(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2), words(3))
        size = (segment(tmp_path, 1).stat().st_size - HEADER_BYTES) // 3
        flip(segment(tmp_path, 1), HEADER_BYTES + 2 * size - 1)
        before = segment(tmp_path, 1).read_bytes()
        assert Writer(tmp_path).ends == {1: 3 * frame_size(8)}
        assert segment(tmp_path, 1).read_bytes() == before

    def test_an_only_segment_without_a_whole_header_costs_nothing(self, tmp_path: Path) -> None:
        segment(tmp_path, 1).write_bytes(pack_segment_header(1, b"i" * 16, 0)[:-1])
        assert read(tmp_path) == []
        written(tmp_path, words(1))
        assert read(tmp_path) == words(1)

    def test_a_damaged_header_of_the_last_segment_does_not_take_its_batches_along(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2), segment_bytes=1)
        flip(segment(tmp_path, 2), 20)
        damage = [("000002.atj", "the segment's header is damaged")]
        assert read_damaged(tmp_path) == (words(1, 2), damage)
        journal = Writer(tmp_path)
        assert journal.ends == {1: 2 * frame_size(8)}
        Source(journal).append(*words(3))
        assert read_damaged(tmp_path) == (words(1, 2, 3), damage)

    def test_a_damaged_header_of_the_only_segment_is_reported_and_nothing_is_removed(self, tmp_path: Path) -> None:
        written(tmp_path, words(1))
        flip(segment(tmp_path, 1), 20)
        before = segment(tmp_path, 1).read_bytes()
        assert read_damaged(tmp_path) == ([], [("000001.atj", "the segment has no header")])
        written(tmp_path, words(2))
        assert segment(tmp_path, 1).read_bytes() == before
        found, damage = read_damaged(tmp_path)
        assert found == words(2)
        assert damage

    def test_ends_of_all_rings_of_the_last_segment_are_recovered(self, tmp_path: Path) -> None:
        journal = Writer(tmp_path)
        rings = [Source(journal, ring) for ring in (1, 2)]
        for source in rings:
            source.append(*words(1, 2))
        journal.close()
        assert Writer(tmp_path).ends == {source.ring: source.end for source in rings}

    def test_what_another_writer_left_is_synced_before_it_is_called_so(
        self, tmp_path: Path, failing_fsync: list[int]
    ) -> None:
        source = Source(Writer(tmp_path, segment_bytes=1))
        source.append(*words(1))
        source.append(*words(2))  # and the process is killed
        journal = Writer(tmp_path)
        assert (journal.synced, journal.synced_until) == ({}, Position())
        failing_fsync.append(1)
        assert not journal.sync()
        assert journal.synced == {}
        assert journal.sync()
        assert journal.synced == {1: source.end}
        assert journal.synced_until == Position(2, segment(tmp_path, 2).stat().st_size)


class TestSync:
    def test_synced_is_what_was_appended_before(self, tmp_path: Path) -> None:
        journal = Writer(tmp_path, segment_bytes=200)
        source = Source(journal)
        for number in range(5):
            source.append(*words(number))
            assert journal.synced.get(1, 0) < source.end
            assert journal.sync()
            assert journal.synced == {1: source.end}
        [*_, last] = Reader(tmp_path)
        assert journal.synced_until == last.after

    def test_a_segment_left_during_an_fsync_is_synced_to_its_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal, sizes, real = Writer(tmp_path, segment_bytes=300), {}, os.fdatasync
        source = Source(journal)

        def fdatasync(fd: int) -> None:
            sizes[os.fstat(fd).st_ino] = os.fstat(fd).st_size
            real(fd)
            if source.number < 5:
                source.append(*words(2))
                source.append(*words(3))  # in the next segment

        source.append(*words(1))
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        while not (journal.sync() and journal.synced[1] == source.end):
            pass
        assert len(sizes) > 1
        assert sizes == {path.stat().st_ino: path.stat().st_size for path in tmp_path.iterdir()}

    def test_after_a_failed_fsync_the_batches_are_written_to_a_new_segment(
        self, tmp_path: Path, failing_fsync: list[int]
    ) -> None:
        journal, live = Writer(tmp_path), Reader(tmp_path)
        source = Source(journal)
        source.append(*words(1))
        assert journal.sync()
        source.append(*words(2))
        source.append(*words(3))
        assert payloads(live) == words(1, 2, 3)
        failing_fsync.append(1)
        assert not journal.sync()
        assert journal.synced == {1: frame_size(8)}
        assert read(tmp_path) == words(1, 2, 3)
        source.append(*words(4))
        assert payloads(live) == words(4)
        assert journal.sync()
        assert journal.synced == {1: source.end}
        assert read(tmp_path) == words(1, 2, 3, 4)
        assert [batch.segment for batch in Reader(tmp_path)] == [1, 2, 2, 2]

    def test_a_segment_that_is_replaced_during_an_fsync_is_not_closed_twice(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal, others = Writer(tmp_path), []
        source = Source(journal)

        def fdatasync(fd: int) -> None:
            segment(tmp_path, 1).unlink()  # somebody removes it,
            source.append(*words(2))  # the drain notices, and writes again what was there,
            others.append(os.open(os.devnull, os.O_RDONLY))  # and its descriptor is another's

        source.append(*words(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fdatasync)
            assert not journal.sync()
        os.close(*others)
        assert journal.sync()
        assert journal.synced == {1: source.end}
        assert read_damaged(tmp_path) == (words(1, 2), [("000001.atj", "the segment is missing")])

    def test_a_copy_that_a_reader_finds_twice_is_skipped(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2))
        copy = segment(tmp_path, 1).read_bytes()[HEADER_BYTES:]
        written(tmp_path, words(3))
        journal_id = journal_id_of(str(tmp_path))
        segment(tmp_path, 3).write_bytes(pack_segment_header(3, journal_id, 0) + copy)
        assert read(tmp_path) == words(1, 2, 3)

    def test_while_fsync_fails_nothing_is_lost_and_memory_is_bounded(
        self, tmp_path: Path, failing_fsync: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "MAX_UNSYNCED_BYTES", 1000)
        journal = Writer(tmp_path)
        source = Source(journal)
        failing_fsync += [1] * 10_000
        while journal._backlog.bytes < 900:
            source.append(*words(source.number))
        with pytest.raises(OSError, match="fsync") as caught:
            source.append(b"x" * 100)
        assert caught.value.errno == errno.EIO
        kept = source.number
        assert read(tmp_path) == words(*range(kept))
        assert journal.synced == {}
        failing_fsync.clear()
        source.append(*words(kept))
        assert read(tmp_path) == words(*range(kept + 1))
        assert journal.sync()
        assert journal.synced == {1: source.end}

    def test_a_disk_that_fails_and_is_full_is_not_filled_with_copies(
        self, tmp_path: Path, failing_fsync: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal, live, real = Writer(tmp_path), Reader(tmp_path), os.write
        source = Source(journal)
        source.append(*words(1))
        source.append(*words(2))
        assert payloads(live) == words(1, 2)

        def write(fd: int, data: Any) -> int:  # there is room for one batch
            if os.fstat(fd).st_size > HEADER_BYTES:
                raise OSError(errno.ENOSPC, "injected")
            return real(fd, data)

        monkeypatch.setattr(os, "write", write)
        failing_fsync.append(1)
        assert not journal.sync()
        for _ in range(10):
            with pytest.raises(OSError, match="injected"):
                source.append(*words(3))
            assert not journal.sync()
        assert segments(str(tmp_path)) == [1, 2]
        assert segment(tmp_path, 2).stat().st_size == HEADER_BYTES
        assert read(tmp_path) == words(1, 2)
        monkeypatch.setattr(os, "write", real)
        source.append(*words(3))
        assert payloads(live) == words(3)
        assert journal.sync()
        assert read(tmp_path) == words(1, 2, 3)

    def test_a_disk_that_fails_for_hours_does_not_get_a_segment_for_each_try(
        self, tmp_path: Path, failing_fsync: list[int]
    ) -> None:
        journal, live = Writer(tmp_path), Reader(tmp_path)
        source = Source(journal)
        source.append(*words(0))
        assert journal.sync()
        for number in range(1, 50):
            source.append(*words(number))
            failing_fsync.append(1)
            assert not journal.sync()
            assert read(tmp_path) == words(*range(number + 1))
            if number % 7 == 0:
                assert payloads(live) == words(*range(number - 7 + (number > 7), number + 1))
        assert segments(str(tmp_path)) == [1, 2]
        assert journal.synced == {1: frame_size(8)}
        assert journal.sync()
        assert journal.synced == {1: source.end}
        assert journal.synced_until == Position(2, segment(tmp_path, 2).stat().st_size)
        source.append(*words(50))
        assert read(tmp_path) == words(*range(51))
        journal.close()

    def test_what_is_written_over_itself_is_whole_at_every_moment(
        self, tmp_path: Path, failing_fsync: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A kill between two writes loses nothing that was journaled."""
        journal, looks, real = Writer(tmp_path), [], os.pwrite
        source = Source(journal)
        for number in range(20):
            source.append(*words(number))
        failing_fsync.append(1)
        assert not journal.sync()

        def pwrite(fd: int, data: Any, at: int) -> int:
            written = real(fd, bytes(data)[:100], at)
            looks.append(read(tmp_path))
            return written

        monkeypatch.setattr(os, "pwrite", pwrite)
        failing_fsync.append(1)
        assert not journal.sync()
        assert len(looks) > 10
        assert all(look == words(*range(20)) for look in looks)

    def test_a_segment_that_somebody_removes_is_written_again_from_where_it_was_safe(self, tmp_path: Path) -> None:
        journal, live = Writer(tmp_path), Reader(tmp_path)
        source = Source(journal)
        source.append(*words(1))
        assert journal.sync()
        source.append(*words(2))
        assert payloads(live) == words(1, 2)
        segment(tmp_path, 1).unlink()
        source.append(*words(3))
        assert payloads(live) == words(3)
        segment(tmp_path, 2).unlink()
        assert not journal.sync()
        assert journal.sync()
        assert read_damaged(tmp_path)[0] == words(2, 3)

    def test_a_journal_that_somebody_removes_takes_nothing_more(self, tmp_path: Path) -> None:
        directory = tmp_path / "journal"
        journal = Writer(directory)
        source = Source(journal)
        source.append(*words(1))
        segment(directory, 1).unlink()
        directory.rmdir()
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                source.append(*words(2))
            assert not journal.sync()
        assert journal.synced == {}
        directory.mkdir()  # it was moved, and is there again
        source.append(*words(2))
        assert journal.sync()
        assert read_damaged(directory)[0] == words(1, 2)

    def test_a_segment_that_could_not_be_removed_when_it_was_given_up_is_used(self, tmp_path: Path) -> None:
        segment(tmp_path, 1).write_bytes(b"half a header")
        journal = Writer(tmp_path)
        segment(tmp_path, 1).write_bytes(b"half a header")
        Source(journal).append(*words(1))
        assert read(tmp_path) == words(1)

    def test_a_closed_journal_does_not_call_safe_what_is_not(self, tmp_path: Path, failing_fsync: list[int]) -> None:
        journal = Writer(tmp_path)
        Source(journal).append(*words(1))
        failing_fsync += [1] * 10
        journal.close()
        assert not journal.sync()
        assert journal.synced == {}

    def test_closing_after_a_failed_fsync_syncs_what_was_written_again(
        self, tmp_path: Path, failing_fsync: list[int]
    ) -> None:
        journal = Writer(tmp_path)
        Source(journal).append(*words(1))
        failing_fsync.append(1)
        journal.close()
        assert journal.synced == {1: frame_size(8)}
        assert read(tmp_path) == words(1)
        assert open_below(tmp_path) == []


def in_process(script: Callable[[], None], directory: Path, wrapper: list[str] | None = None) -> str:
    """What a function prints that is run in a process of its own."""
    code = "\n".join(
        [
            "import sys; sys.path.insert(0, sys.argv[1])",
            "from test_journal import *",
            inspect.getsource(script),
            f"{script.__name__}()",
        ]
    )
    command = [*(wrapper or []), sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def fill_a_small_file_system() -> None:
    directory, appended = Path("journal"), []
    journal = Writer(directory, segment_bytes=100_000)
    source, refused = Source(journal), []
    while len(refused) < 3:
        try:
            source.append(batch := os.urandom(20_000))
            appended.append(batch)
        except OSError as error:
            refused.append(error.errno)
    assert refused == [errno.ENOSPC] * 3
    assert len(appended) > 10
    assert read(directory) == appended
    assert journal.sync()
    Path("ballast").unlink()
    source.append(*words(1))
    assert read(directory) == [*appended, *words(1)]
    print("ok")


def write_against_a_limit() -> None:
    import resource

    directory, hard = Path("journal"), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    journal = Writer(directory)
    source = Source(journal)
    source.append(*words(1))
    size = segment(directory, 1).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))  # a write of more is cut short, the next one fails
    for _ in range(3):
        with pytest.raises(OSError, match="too large"):
            source.append(b"x" * 1000)
        assert segment(directory, 1).stat().st_size == size
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    source.append(*words(2))
    assert journal.sync()
    assert read(directory) == words(1, 2)
    print("ok")


class TestFullDisk:
    def test_a_full_file_system_keeps_whole_batches_and_goes_on_when_there_is_room(self, tmp_path: Path) -> None:
        mount = (
            'mount -t tmpfs -o size=512k tmpfs . && cd "$PWD" && head -c 100000 /dev/zero > ballast && exec "$0" "$@"'
        )
        try:
            said = in_process(fill_a_small_file_system, tmp_path, ["unshare", "-m", "sh", "-c", mount])
        except FileNotFoundError:
            pytest.skip("no unshare here")
        assert said == "ok\n"

    def test_a_write_cut_short_leaves_no_half_batch(self, tmp_path: Path) -> None:
        assert in_process(write_against_a_limit, tmp_path) == "ok\n"


class TestDamage:
    def test_a_flipped_bit_costs_a_block_and_not_the_batch(self, tmp_path: Path) -> None:
        batch = [b"%d" % number * 200 for number in range(1000)]
        written(tmp_path, batch)
        flip(segment(tmp_path, 1), 3 * BLOCK_BYTES)
        found, damage = read_damaged(tmp_path)
        assert damage == [("000001.atj", "a block fails its checksum")]
        lost = [payload for payload in batch if payload not in found]
        assert found == [payload for payload in batch if payload not in lost]
        assert sum(map(len, lost)) < 2 * BLOCK_BYTES

    @pytest.mark.system
    @pytest.mark.parametrize("size", [8, 4096, 3 * BLOCK_BYTES])
    @pytest.mark.parametrize("numbers", [(0, 0), (1, 5, 0), (16, 0)], ids=["zeros", "constants", "zeros and constants"])
    def test_numbers_in_a_payload_are_no_frames(self, tmp_path: Path, size: int, numbers: tuple[int, ...]) -> None:
        array = b"".join(number.to_bytes(8, "little") for number in numbers)
        first = words(0) if any(numbers) else []
        batch = [*first, *[(array * size)[:size]] * (1 + 4 * BLOCK_BYTES // size), *words(1, 2)]
        written(tmp_path, batch)
        flip(segment(tmp_path, 1), 1000)  # in the first block: where the next frame begins has to be found
        reader = Reader(tmp_path)
        frames = [(frame.number, bytes(frame.payload)) for found in reader for frame in found.frames()]
        assert frames[-2:] == [(len(batch) - 2, b"record 1"), (len(batch) - 1, b"record 2")]
        assert set(frames) <= set(enumerate(batch))
        assert len(reader.damage) == 1

    def test_a_damaged_batch_header_costs_its_batch(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2), words(3))
        size = (segment(tmp_path, 1).stat().st_size - HEADER_BYTES) // 3
        flip(segment(tmp_path, 1), HEADER_BYTES + size)
        assert read_damaged(tmp_path) == (words(1, 3), [("000001.atj", "no batch begins there")])

    def test_a_segment_torn_in_the_middle_of_a_journal_is_reported(self, tmp_path: Path) -> None:
        written(tmp_path, words(1), words(2))
        written(tmp_path, words(3))
        os.truncate(segment(tmp_path, 1), segment(tmp_path, 1).stat().st_size - 1)
        assert read_damaged(tmp_path) == (words(1, 3), [("000001.atj", "the segment ends in a torn batch")])

    def test_damage_is_reported_once_and_says_where(self, tmp_path: Path) -> None:
        written(tmp_path, words(1))
        flip(segment(tmp_path, 1), HEADER_BYTES + 90)
        reader = Reader(tmp_path)
        for _ in range(3):
            assert payloads(reader) == []
        [damage] = reader.damage
        where = f"{segment(tmp_path, 1)}: {frame_size(8)} bytes from byte {2 * HEADER_BYTES + 4} on cannot be read"
        assert str(damage) == f"{where}: a block fails its checksum"

    @pytest.mark.parametrize("size", [8, 16, 64])
    def test_frames_that_the_caller_wrote_over_are_no_crash(self, tmp_path: Path, size: int) -> None:
        journal = Writer(tmp_path)
        garbage = frame(b"good", 0) + b"\x00\x7f" * (size // 2)
        journal.append(1, 0, len(garbage), 0, garbage)
        assert read(tmp_path) == [b"good"]
        [batch] = Reader(tmp_path)
        records, others, at = batch.take(0, 1 << 20, 1 << 30)
        assert ([bytes(payload) for _, payload in records], others, at) == ([b"good"], [], len(garbage))

    def test_a_batch_that_lies_about_its_length_is_not_taken(self, tmp_path: Path) -> None:
        journal_id = b"i" * 16
        header = BatchHeader(layout.MAX_BATCH_BYTES + 8, 1, 0, layout.MAX_BATCH_BYTES + 8, 0, 0)
        liar = pack_batch(header, (b"",), salt_of(journal_id))
        segment(tmp_path, 1).write_bytes(pack_segment_header(1, journal_id, 0) + liar)
        assert read(tmp_path) == []
