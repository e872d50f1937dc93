"""The power is cut, and the journal loses what cursors and `run.json` tell of: the run goes on, nothing is stepped over or repeated."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import wait_until

import asynctrack
from asynctrack import RunStats
from asynctrack.cli.sync_job import SyncJob
from asynctrack.journal.cursor import Cursor, load_cursor
from asynctrack.journal.layout import HEADER_BYTES, Position, segment_name
from asynctrack.journal.reader import Reader

pytestmark = [
    pytest.mark.usefixtures("shared_host"),
    pytest.mark.filterwarnings("ignore::asynctrack.errors.DamagedJournal"),  # it has lost its end, and says so
]

SESSIONS = 3
CURSOR, MANIFEST, LINES = "cursors/jsonl.json", "run.json", "metrics.jsonl"
Files = dict[str, bytes]


class Golden(NamedTuple):
    """A run that was opened and finished three times: its files, and what cursor and `run.json` were on the way."""

    files: Files
    cursors: list[bytes]
    manifests: list[bytes]
    ends: list[Position]  # of nothing, the segments' headers and the batches


@pytest.fixture(scope="module")
def golden(shared_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    runs, cursors, manifests = tmp_path_factory.mktemp("golden"), [], []
    for session in range(SESSIONS):
        config = {"sessions": session + 1}
        run = asynctrack.init("p", id="run", dir=runs, worker="thread", resume="allow", config=config)
        for i in range(4):
            for _ in range(3):
                run.log({"i": i, "text": "x" * i})
            run.flush()
            cursors.append((run.path / CURSOR).read_bytes())
        run.config["late"] = session
        run.finish({"best": session})
        cursors.append((run.path / CURSOR).read_bytes())
        manifests.append((run.path / MANIFEST).read_bytes())
    files = {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    ends = [Position(), *(Position(number, HEADER_BYTES) for number in range(1, SESSIONS + 1))]
    ends += [batch.after for batch in Reader(run.path / "journal")]
    assert len(ends) > 20
    return Golden(files, cursors, manifests, sorted(ends))


def segment_of(name: str) -> int:
    return int(Path(name).stem) if name.startswith("journal/") else -1


def cut(files: Files, end: Position, tail: bytes = b"", *, rest: bool = False) -> Files:
    """The files of a run whose journal ends there, but for a tail that the disk made up; or (`rest`) goes on with the next segment."""
    kept = {}
    for name, content in files.items():
        number = segment_of(name)
        if number == end.segment:
            kept[name] = content[: end.offset] + tail
        elif number < end.segment or rest:
            kept[name] = content
    return kept


def lay_out(run: Path, files: Files) -> Path:
    for name, content in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    return run


def go_on(run: Path) -> RunStats:
    """Resume a run, log four records, and finish it."""
    project = run.parent
    opened = asynctrack.init(
        project.name, id=run.name, dir=project.parent, worker="thread", resume="must", config={"again": True}
    )
    for i in range(4):
        assert opened.log({"i": i, "again": True})
    return opened.finish()


def journal_of(run: Path) -> list[tuple[int, float]]:
    """Step and time of the records in the journal."""
    if not (run / "journal").is_dir():
        return []  # what `open_run` reads then is the JSON Lines
    return [(record.step, record.time_ns / 1e9) for record in asynctrack.open_run(run).records()]


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / LINES).read_bytes().splitlines()]


def check(run: Path, *, harmed: bool = False) -> None:
    """Go on with a run that lost the end of its journal, and look at all it is made of."""
    was, survived = asynctrack.open_run(run).manifest(), journal_of(run)
    lines, known = (run / LINES).read_bytes(), load_cursor(run, "jsonl").next_number
    stats = go_on(run)

    after, journal = asynctrack.open_run(run), journal_of(run)
    assert journal[:-4] == survived
    assert journal[-4][0] >= max([known, *(step + 1 for step, _ in survived)])
    assert stats.accepted == stats.journaled == stats.backends["jsonl"].delivered + stats.backends["jsonl"].behind
    if not harmed:
        list(after.records())
        assert after.damage == []
        assert (stats.journaled, stats.behind) == (len(journal), 0)
    assert load_cursor(run, "jsonl").closed

    rows = [(row["_step"], row["_timestamp"]) for row in rows_of(run)]
    assert len(set(rows)) == len(rows)
    left = iter(rows)
    assert all(record in left for record in journal)
    assert (run / LINES).read_bytes().startswith(lines[: lines.rfind(b"\n") + 1])
    assert not (run / "metrics-2.jsonl").exists()

    now = after.manifest()
    assert now.status == json.loads((run / MANIFEST).read_bytes())["status"] == "finished"
    assert now.config == {**was.config, "again": True}
    assert now.summary == was.summary


TAILS = {"nothing": b"", "zeros": bytes(700), "garbage": random.Random(0).randbytes(300), "half a batch": None}


@pytest.mark.system
@pytest.mark.parametrize("tail", TAILS)
def test_journal_cut_behind_every_batch_goes_on(golden: Golden, tmp_path: Path, tail: str) -> None:
    for number, end in enumerate(golden.ends):
        next_bytes = golden.files.get(f"journal/{segment_name(end.segment)}", b"")[end.offset :][:150]
        made_up = next_bytes if TAILS[tail] is None else TAILS[tail]
        check(lay_out(tmp_path / "p" / str(number), cut(golden.files, end, made_up)))


@pytest.mark.system
@pytest.mark.parametrize("manifest", range(SESSIONS))
def test_journal_cut_at_any_time_goes_on_with_what_the_disk_had_of_other_times(
    golden: Golden, tmp_path: Path, manifest: int
) -> None:
    for number, cursor in enumerate(golden.cursors):
        end = golden.ends[number * len(golden.ends) // len(golden.cursors)]
        files = {**cut(golden.files, end), CURSOR: cursor, MANIFEST: golden.manifests[manifest]}
        check(lay_out(tmp_path / "p" / str(number), files))


@pytest.mark.system
def test_delivery_that_begins_again_behind_a_cut_repeats_nothing(golden: Golden, tmp_path: Path) -> None:
    """The worker was killed before it had saved how far it was."""
    for number, end in enumerate(golden.ends[6::4]):
        run = lay_out(tmp_path / "p" / str(number), cut(golden.files, end))
        check(run)
        for cursor in golden.cursors[:2]:
            (run / CURSOR).write_bytes(cursor)
            check(run)


def test_nothing_is_appended_while_a_cursor_cannot_be_rewound(golden: Golden, tmp_path: Path) -> None:
    run = lay_out(tmp_path / "p" / "run", cut(golden.files, golden.ends[10]))
    obstacle = run / "cursors" / ".jsonl.json.new"
    obstacle.mkdir()
    before = sorted((run / "journal").iterdir())
    opened = asynctrack.init("p", id="run", dir=tmp_path, worker="thread", resume="must")
    for i in range(4):
        assert opened.log({"i": i})
    assert opened.flush("journaled", timeout_s=1).queued == 4
    assert sorted((run / "journal").iterdir()) == before
    obstacle.rmdir()
    stats = opened.finish()
    assert (stats.queued, stats.behind, stats.journaled) == (0, 0, len(journal_of(run)))
    assert journal_of(run)[-1] == (rows_of(run)[-1]["_step"], rows_of(run)[-1]["_timestamp"])


@pytest.mark.parametrize(
    ("journaled", "left"), [(100, (50, 20, 10)), (70, (40, 20, 10)), (25, (0, 15, 10)), (4, (0, 0, 4)), (0, (0, 0, 0))]
)
def test_statistics_of_a_cursor_that_is_rewound_balance(journaled: int, left: tuple[int, int, int]) -> None:
    cursor = Cursor(
        position=Position(3, 1000, 8),
        ends={0: 9, 1: 100, 2: 50},
        delivered=50,
        skipped={"downsampled": 20},
        rejected=10,
    )
    cursor.closed = True
    cursor.rewind(Position(2, 500), {0: 7, 1: 200}, journaled)
    assert (cursor.delivered, cursor.skipped["downsampled"], cursor.rejected) == left
    assert sum(left) <= journaled
    assert (cursor.position, cursor.ends, cursor.closed) == (Position(2, 500), {0: 7, 1: 100}, False)


@pytest.mark.system
def test_run_whose_end_was_lost_ends_as_it_did_when_its_records_are_delivered(golden: Golden, tmp_path: Path) -> None:
    for number, end in enumerate(golden.ends[-12:]):
        files = {**cut(golden.files, end), CURSOR: golden.cursors[5]}
        run = lay_out(tmp_path / "p" / str(number), files)
        with SyncJob([run]) as work:
            wait_until(lambda work=work: work.poll() and work.done, "all is delivered")
        assert asynctrack.open_run(run).status == json.loads((run / MANIFEST).read_bytes())["status"] == "finished"
        cursor = load_cursor(run, "jsonl")
        assert cursor.closed
        assert cursor.delivered == len(journal_of(run))
        assert (run / LINES).read_bytes() == golden.files[LINES]


def edit_a_value(lines: list[bytes]) -> None:
    lines[-2] = lines[-2].replace(b'"i":3', b'"i":999')


def remove_a_line(lines: list[bytes]) -> None:
    del lines[-5]


def add_a_line(lines: list[bytes]) -> None:
    lines.insert(-3, b"see here\n")


def end_without_a_newline(lines: list[bytes]) -> None:
    lines[-1] = lines[-1].replace(b'"i":3', b'"i":999').rstrip()


@pytest.mark.system
@pytest.mark.parametrize("edit", [edit_a_value, remove_a_line, add_a_line, end_without_a_newline])
def test_lines_that_a_person_edited_are_left_alone_and_built_anew_beside_them(
    golden: Golden, tmp_path: Path, edit: Callable[[list[bytes]], None]
) -> None:
    lines = golden.files[LINES].splitlines(keepends=True)
    edit(lines)
    edited = b"".join(lines)
    run = lay_out(tmp_path / "p" / "run", {**golden.files, CURSOR: golden.cursors[-4], LINES: edited})
    go_on(run)
    assert (run / LINES).read_bytes() == edited
    anew = [json.loads(line) for line in (run / "metrics-2.jsonl").read_bytes().splitlines()]
    assert [(row["_step"], row["_timestamp"]) for row in anew] == journal_of(run)


@pytest.fixture(scope="module")
def chance(golden: Golden) -> st.SearchStrategy[Files]:
    """What a power cut may leave: the journal to some byte, the lines at least to where the cursor says, which was saved behind them."""

    @st.composite
    def left(draw: st.DrawFn) -> Files:
        segment = draw(st.integers(1, SESSIONS))
        size = len(golden.files[f"journal/{segment_name(segment)}"])
        # A header lies in one sector: it is there or not.
        offset = draw(st.just(0) | st.integers(HEADER_BYTES, size))
        zeros = st.integers(0, 1000).map(bytes)
        tail = draw(zeros | st.sampled_from([b"", b"ATB1"]) | st.binary(max_size=200) if offset else zeros)
        files = cut(golden.files, Position(segment, offset), tail)
        cursor = draw(st.sampled_from(golden.cursors))
        state = json.loads(cursor)["state"]
        lines = golden.files[LINES]
        kept = draw(st.integers(state["bytes"] if state else 0, len(lines)))
        torn = draw(st.sampled_from([b"", bytes(50)]))
        return {
            **files, CURSOR: cursor, MANIFEST: draw(st.sampled_from(golden.manifests)), LINES: lines[:kept] + torn,
        }  # fmt: skip

    return left()


def try_some(chance: st.SearchStrategy[Files], examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )
    @given(files=chance)
    def go_on_with(files: Files) -> None:
        with tempfile.TemporaryDirectory(prefix="asynctrack-test-") as directory:
            check(lay_out(Path(directory) / "p" / "run", files))

    go_on_with()


@pytest.mark.system
def test_whatever_a_power_cut_leaves_goes_on(chance: st.SearchStrategy[Files]) -> None:
    try_some(chance, 40)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_a_power_cut_leaves_goes_on_longer(chance: st.SearchStrategy[Files]) -> None:
    try_some(chance, 2000)
