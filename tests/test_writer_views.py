"""The setting `writers`: what a backend gets of a run that several processes write to."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asynctrack
from asynctrack import Memory
from asynctrack.backends.base import ActionRequired
from asynctrack.backends.files.csv_rows import read_records as read_csv
from asynctrack.delivery import means as means_module
from asynctrack.delivery.batcher import Batcher
from asynctrack.delivery.pending import Pending
from asynctrack.errors import InvalidSettings
from asynctrack.journal.cursor import Cursor, decode_cursor
from asynctrack.records.codec import Record
from asynctrack.testing import BackendContract, JournaledRun, deliver

# Of a writer: the steps and the data that it logs.
Logged = list[tuple[int, dict[str, Any]]]

THREE: Final[dict[str, Logged]] = {
    "rank0": [(0, {"loss": 1.0, "lr": 0.5}), (1, {"loss": 2.0})],
    "rank1": [(0, {"loss": 3.0}), (1, {"loss": 4.0})],
    "rank2": [(0, {"loss": 5.0, "note": "hello"}), (1, {"loss": 9.0})],
}


class SeveralWriters:
    """A run of several writers, in a journal whose batches a test cuts.

    Args:
        path: of the run.
        writers: the labels; the first opens the run.
        expected: how many it says that there are.
    """

    def __init__(self, path: Path, writers: Sequence[str], expected: int | None = None) -> None:
        self.path = path
        self.run = JournaledRun(path, environment={"writer": writers[0], "rank": 0, "expected": expected})
        self.by_label = {writers[0]: self.run}
        for rank, label in enumerate(writers[1:], 1):
            self.by_label[label] = self.run.join(label, rank, expected=expected)

    def log(self, label: str, step: int, data: dict[str, Any], *, journal: bool = True) -> None:
        self.by_label[label].log(data, step, time_ns=1_000 + step)
        if journal:
            self.by_label[label].journal()

    def end(self) -> None:
        for each in self.by_label.values():
            each.journal()
        self.run.end()
        self.run.close()


def in_turns(path: Path, logged: dict[str, Logged], expected: int | None = None) -> Path:
    """Write a run whose writers log in turns."""
    several = SeveralWriters(path, list(logged), expected)
    for at in range(max(map(len, logged.values()))):
        for label, its in logged.items():
            if at < len(its):
                several.log(label, *its[at])
    several.end()
    return path


def cuts(path: Path, backend: Memory, *, reopen: bool) -> Iterator[tuple[list[Record], Cursor]]:
    """The batches of a delivery, each with the cursor behind it; `reopen`: each by a delivery that begins at the last cursor, as its file has it."""
    cursor = Cursor()
    batcher = Batcher(path, cursor, backend)
    try:
        while (cut := batcher.next()) is not None:
            pending = Pending.of(cut)
            for _ in pending.parts:
                pending = pending.take(None)
            cursor = decode_cursor(msgspec.json.encode(pending.move(cursor)))
            yield cut.batch.records, cursor
            if reopen:
                batcher.close()
                batcher = Batcher(path, cursor, backend)
    finally:
        batcher.close()


def delivered(path: Path, backend: Memory, *, reopen: bool = False) -> tuple[list[Record], Cursor]:
    records: list[Record] = []
    cursor = Cursor()
    for some, behind in cuts(path, backend, reopen=reopen):
        records += some
        cursor = behind
    return records, cursor


def rows(path: Path, backend: Memory, *, reopen: bool = False) -> list[tuple[int, dict[str, Any]]]:
    return [(record.step, record.data) for record in delivered(path, backend, reopen=reopen)[0]]


def test_all_are_the_records_of_each_with_its_label(tmp_path: Path) -> None:
    records, cursor = delivered(in_turns(tmp_path / "p" / "r", THREE), Memory())
    assert [record.writer for record in records] == ["rank0", "rank1", "rank2"] * 2
    assert cursor.delivered == 6


def test_owner_is_rank_0_and_the_others_are_counted(tmp_path: Path) -> None:
    path = in_turns(tmp_path / "p" / "r", THREE)
    assert rows(path, Memory(writers="owner")) == THREE["rank0"]
    _, cursor = delivered(path, Memory(writers="owner"))
    assert (cursor.delivered, cursor.skipped) == (2, {"of other writers": 4})


def test_owner_is_rank_0_also_where_another_rank_has_opened_the_run(tmp_path: Path) -> None:
    run = JournaledRun(tmp_path / "p" / "r", environment={"writer": "rank1", "rank": 1, "joins": True})
    run.log({"loss": 1})
    run.journal()
    zero = run.join("rank0", 0)
    zero.log({"loss": 0})
    zero.journal()
    run.log({"loss": 1})
    run.end()
    run.close()
    assert [data for _, data in rows(run.path, Memory(writers="owner"))] == [{"loss": 0}]


def test_owner_is_who_opened_a_run_of_its_own(tmp_path: Path) -> None:
    """Each rank of a job may have a run for itself, and give it a label."""
    with JournaledRun(tmp_path / "p" / "r", environment={"writer": "mine", "rank": 3}) as run:
        run.log({"loss": 1})
        run.end()
        assert [data for _, data in rows(run.path, Memory(writers="owner"))] == [{"loss": 1}]


def test_prefix_puts_the_label_in_front_of_each_name(tmp_path: Path) -> None:
    found = rows(in_turns(tmp_path / "p" / "r", THREE), Memory(writers="prefix"))
    assert found[0] == (0, {"rank0/loss": 1.0, "rank0/lr": 0.5})
    assert found[2] == (0, {"rank2/loss": 5.0, "rank2/note": "hello"})


def test_mean_gives_mean_extremes_and_the_number_of_ranks(tmp_path: Path) -> None:
    path = in_turns(tmp_path / "p" / "r", THREE, 3)
    records, cursor = delivered(path, Memory(writers="mean"))
    assert [(record.step, record.number, record.data) for record in records] == [
        (
            0,
            0,
            {
                "loss": 3.0, "loss/max": 5.0, "loss/min": 1.0, "loss/ranks": 3,
                "lr": 0.5, "lr/max": 0.5, "lr/min": 0.5, "lr/ranks": 1,
            },
        ),
        (1, 1, {"loss": 5.0, "loss/max": 9.0, "loss/min": 2.0, "loss/ranks": 3}),
    ]  # fmt: skip
    assert (cursor.delivered, cursor.skipped) == (2, {"averaged": 4})


@pytest.mark.parametrize("selection", ["all", "owner", "prefix", "mean"])
def test_a_run_of_one_writer_is_the_same_for_each(tmp_path: Path, selection: Any) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        for step in (3, 1, 1):
            run.log({"loss": step, "text": "a"}, step, time_ns=step)
        run.end()
        assert delivered(run.path, Memory(writers=selection))[0] == delivered(run.path, Memory())[0]


def test_mean_without_a_number_of_writers_says_the_way_out(tmp_path: Path) -> None:
    path = in_turns(tmp_path / "p" / "r", THREE)
    batcher = Batcher(path, Cursor(), Memory(writers="mean"))
    for _ in range(2):  # each try says so
        with pytest.raises(ActionRequired, match=r"expected= .* WORLD_SIZE.* writers='all', 'owner' or 'prefix',"):
            batcher.next()
    batcher.close()


def test_a_step_waits_for_all_that_are_expected_and_not_for_the_clock(tmp_path: Path) -> None:
    several = SeveralWriters(tmp_path / "p" / "r", ["rank0"], expected=2)
    for step in range(5):
        several.log("rank0", step, {"loss": step})
    assert rows(several.path, Memory(writers="mean")) == []
    several.by_label["rank1"] = several.run.join("rank1", 1, expected=2)
    for step in range(3):
        several.log("rank1", step, {"loss": 10.0})
    assert [step for step, _ in rows(several.path, Memory(writers="mean"))] == [0, 1]
    several.end()
    assert [(step, data["loss"], data["loss/ranks"]) for step, data in rows(several.path, Memory(writers="mean"))] == [
        (0, 5.0, 2),
        (1, 5.5, 2),
        (2, 6.0, 2),
        (3, 3.0, 1),
        (4, 4.0, 1),
    ]


def test_a_writer_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    several = SeveralWriters(tmp_path / "p" / "r", ["rank0", "rank1"], expected=2)
    several.log("rank1", 0, {"loss": 1})
    for step in range(4):
        several.log("rank0", step, {"loss": 3})
    assert rows(several.path, Memory(writers="mean")) == []
    several.by_label["rank1"].end_ring()
    assert [step for step, _ in rows(several.path, Memory(writers="mean"))] == [0, 1, 2]
    several.end()


def test_a_data_loader_of_a_rank_is_not_waited_for(tmp_path: Path) -> None:
    several = SeveralWriters(tmp_path / "p" / "r", ["rank0", "rank1"], expected=2)
    for label, rank in (("rank0", 0), ("host:7", None)):
        several.run.join(label, rank, expected=2)
    for label in ("rank0", "rank1"):
        for step in range(3):
            several.log(label, step, {"loss": step})
    assert [step for step, _ in rows(several.path, Memory(writers="mean"))] == [0, 1]
    several.end()


def test_steps_that_go_back_are_counted_and_not_averaged(tmp_path: Path) -> None:
    logged: dict[str, Logged] = {
        "rank0": [(5, {"loss": 1.0}), (3, {"loss": 100.0}), (6, {"loss": 1.0})],
        "rank1": [(5, {"loss": 3.0}), (6, {"loss": 3.0})],
    }
    records, cursor = delivered(in_turns(tmp_path / "p" / "r", logged, 2), Memory(writers="mean"))
    assert [(record.step, record.data["loss"]) for record in records] == [(5, 2.0), (6, 2.0)]
    assert cursor.skipped == {"averaged": 2, "late for its step": 1}


def test_a_run_that_is_opened_again_may_go_back(tmp_path: Path) -> None:
    several = SeveralWriters(tmp_path / "p" / "r", ["rank0", "rank1"], expected=2)
    for session in range(2):
        if session:
            several.run.start()
            several.by_label["rank1"] = several.run.join("rank1", 1, expected=2)
        for step in range(3):
            for label in ("rank0", "rank1"):
                several.log(label, step, {"loss": session})
    several.end()
    found = rows(several.path, Memory(writers="mean"))
    assert [(step, data["loss"]) for step, data in found] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize("limit", ["MOST_OPEN", "MOST_SUMS"])
def test_open_steps_are_bounded_while_a_writer_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(means_module, limit, 10)
    several = SeveralWriters(tmp_path / "p" / "r", ["rank0", "rank1"], expected=2)
    for step in range(30):
        several.log("rank0", step, {"loss": 1.0})
    assert [step for step, _ in rows(several.path, Memory(writers="mean"))] == list(range(20))
    several.log("rank1", 0, {"loss": 3.0})
    several.log("rank1", 25, {"loss": 3.0})
    several.end()
    records, cursor = delivered(several.path, Memory(writers="mean"), reopen=True)
    assert [record.data["loss"] for record in records] == [1.0] * 25 + [2.0] + [1.0] * 4
    assert cursor.skipped == {"averaged": 1, "late for its step": 1}


VALUES: Final = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64), st.integers(-(2**70), 2**70), st.booleans()
)
DATA: Final = st.dictionaries(st.sampled_from(["loss", "acc", "lr"]), VALUES, max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Logged]:
    """What each of some writers logs: steps that mostly rise, may repeat, and may go back."""
    found: dict[str, Logged] = {}
    for rank in range(draw(st.integers(1, 4))):
        step, its = 0, []
        for up in draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, -2]), max_size=8)):
            step += up
            its.append((step, draw(DATA)))
        found[f"rank{rank}"] = its
    return found


def shuffled(path: Path, logged: dict[str, Logged], seed: int) -> Path:
    """Write a run whose writers come in any order, in batches of any length."""
    chance = random.Random(seed)
    several = SeveralWriters(path, list(logged), len(logged))
    left = {label: list(its) for label, its in logged.items()}
    while some := [label for label, its in left.items() if its]:
        label = chance.choice(some)
        several.log(label, *left[label].pop(0), journal=chance.random() < 0.5)
    several.end()
    return path


def expected_rows(logged: dict[str, Logged]) -> list[tuple[int, dict[str, Any]]]:
    """The mean over all records of a step, by the rule alone."""
    values: defaultdict[int, defaultdict[str, defaultdict[str, list[float]]]]
    values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for label, its in logged.items():
        reached = -math.inf
        for step, data in its:
            if step >= reached:
                reached = step
                for key, value in data.items():
                    values[step][key][label].append(float(value))
    found = []
    for step in sorted(values):
        row: dict[str, Any] = {}
        for key, by_label in values[step].items():
            each = [value for its in by_label.values() for value in its]
            numbers = [value for value in each if value == value]
            row[f"{key}/min"] = min(numbers, default=math.nan)
            row[f"{key}/max"] = max(numbers, default=math.nan)
            row[f"{key}/ranks"] = len(by_label)
            row[key] = sum(value / len(each) for value in each)
        found.append((step, row))
    return found


def assert_same(found: list[tuple[int, dict[str, Any]]], wanted: list[tuple[int, dict[str, Any]]], rel: float) -> None:
    assert [step for step, _ in found] == [step for step, _ in wanted]
    for (_, there), (_, given_) in zip(found, wanted, strict=True):
        assert there.keys() == given_.keys()
        for key, value in there.items():
            assert value == pytest.approx(given_[key], rel=rel, abs=1e-300, nan_ok=True), key


@given(logged=histories(), seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), size=st.integers(1, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_any_cut_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, logged: dict[str, Logged], seeds: tuple[int, int], size: int
) -> None:
    """Whichever way the writers' records mix, wherever batches are cut, and though each batch were delivered by another process."""

    class SmallBatches(Memory, frozen=True, kw_only=True, tag=f"small{size}"):
        batch_records = size

    where = tmp_path_factory.mktemp("runs")
    first, second = (shuffled(where / "p" / str(at), logged, seed) for at, seed in enumerate(seeds))
    found = rows(first, Memory(writers="mean"))
    for other in (
        rows(first, SmallBatches(writers="mean"), reopen=True),
        rows(second, SmallBatches(writers="mean")),
        rows(second, SmallBatches(writers="mean"), reopen=True),
    ):
        assert repr(other) == repr(found)
    wanted = [(step, row) for step, row in expected_rows(logged) if row]
    if not any(abs(value) > 1e306 for _, row in wanted for value in row.values()):
        assert_same(found, wanted, rel=1e-6)
    _, cursor = delivered(first, SmallBatches(writers="mean"), reopen=True)
    assert cursor.delivered + sum(cursor.skipped.values()) == sum(map(len, logged.values()))


def test_a_record_without_a_number_opens_no_row(tmp_path: Path) -> None:
    logged: dict[str, Logged] = {"rank0": [(0, {"loss": 1.0})], "rank1": [(1, {"text": "a"})]}
    records, cursor = delivered(in_turns(tmp_path / "p" / "r", logged, 2), Memory(writers="mean"))
    assert [record.step for record in records] == [0]
    assert cursor.skipped == {"no number": 1}


def test_what_is_no_number_is_rank_0s(tmp_path: Path) -> None:
    logged: dict[str, Logged] = {"rank0": [(0, {"text": "mine"})], "rank1": [(0, {"text": "other", "loss": 1.0})]}
    ((step, data),) = rows(in_turns(tmp_path / "p" / "r", logged, 2), Memory(writers="mean"))
    assert (step, data["text"], data["loss"]) == (0, "mine", 1.0)


@pytest.mark.parametrize("wrong", ["most", None, 3, ["all"]])
def test_a_wrong_setting_says_which_are_right(wrong: Any) -> None:
    with pytest.raises(InvalidSettings, match=r"writers of CSV must be one of 'all', 'owner', 'prefix'.*; got"):
        asynctrack.CSV(writers=wrong)


def test_a_backend_that_cannot_split_says_what_it_can() -> None:
    with pytest.raises(
        InvalidSettings, match="writers of SQL must be one of 'all', 'owner', 'prefix', 'mean'; got 'split'"
    ):
        asynctrack.SQL(writers="split")


def test_delivery_keeps_the_place_of_means(tmp_path: Path) -> None:
    """By the real delivery, whose cursor is a file."""
    several = SeveralWriters(tmp_path / "p" / "r", ["rank0", "rank1"], expected=2)
    for step in range(4):
        several.log("rank0", step, {"loss": 1.0})
    cursor = deliver(several.path, asynctrack.CSV(writers="mean"), name="csv")
    assert cursor.delivered == 0
    for step in range(4):
        several.log("rank1", step, {"loss": 3.0})
    several.end()
    cursor = deliver(several.path, asynctrack.CSV(writers="mean"), name="csv")
    assert (cursor.delivered, cursor.skipped) == (4, {"averaged": 4})
    lines = (several.path / "csv" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 5, lines


class OfTwoWriters(BackendContract):
    """The part of the contract that is about writers, for CSV with another setting."""

    exactly_once = True
    records = 30
    selection: Any = "all"

    def make_backend(self, run: Path) -> asynctrack.CSV:
        return asynctrack.CSV(writers=self.selection)

    def read(self, run: Path) -> Iterator[tuple[int, str, Any]]:
        for path in sorted((run / "csv").glob("*.csv")):
            for record in read_csv(path):
                for key, value in record.data.items():
                    yield record.step, key, value


@pytest.mark.parametrize("selection", ["all", "owner", "prefix", "mean"])
def test_the_contract_of_two_writers_holds_for_each_setting(tmp_path: Path, selection: Any) -> None:
    contract = OfTwoWriters()
    contract.selection = selection
    contract.test_two_writers_show_as_the_setting_says(tmp_path / "shows")
    contract.test_killed_with_two_writers_it_goes_on_without_loss(tmp_path / "killed")


def test_subscribers_hear_who_has_logged(tmp_path: Path) -> None:
    heard: list[Any] = []
    deliver(in_turns(tmp_path / "p" / "r", THREE), asynctrack.Subscriber(heard.append), name="subscriber")
    assert [event.writer for event in heard if isinstance(event, asynctrack.events.Metrics)] == [*THREE] * 2
