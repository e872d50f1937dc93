"""The page's server says of runs what they are, quickly, while they go on, and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_server import PageProcess, blocks_in, listing_of, made_runs, page_of, rows_of

LONG = [{"loss": 1 / (step + 1), "val/loss": float(step)} for step in range(1000)]
SHORT = [{"loss": 0.5, "acc": 1}, {"loss": math.nan, "acc": 2}, {"loss": math.inf, "acc": 3}]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("page") / "runs"
    made_runs(directory, {"p/long": LONG, "p/short": SHORT, "q/short": SHORT[:1]})
    return directory


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    cache = str(tmp_path_factory.mktemp("cache"))
    with page_of(runs, environment={"XDG_CACHE_HOME": cache}) as found:
        yield found


def test_rows_say_what_the_runs_are(page: PageProcess) -> None:
    rows = rows_of(page)
    assert rows.keys() == {"p/long", "p/short", "q/short"}
    row = rows["p/short"]
    assert (row["status"], row["records"], row["step"]) == ("finished", 3, 2)
    assert row["config"] == {"lr": 0.1, "model/layers": 3}
    assert row["last"] == {"loss": "inf", "acc": 3}
    assert not {"tags", "error", "behind", "hosts"} & row.keys()


def test_only_rows_that_have_changed_come_again(page: PageProcess) -> None:
    rows_of(page)
    first = page.get("runs").json()
    assert first["reset"] and len(first["runs"]) == 3
    again = page.get("runs", since=first["version"]).json()
    assert (again["reset"], again["runs"], again["removed"]) == (False, [], [])
    foreign = page.get("runs", since=12).json()
    assert foreign["reset"] and len(foreign["runs"]) == 3


def test_run_is_told_in_full(page: PageProcess) -> None:
    found = page.get("run", run="p/short").json()
    assert found["config"] == {"lr": 0.1, "model": {"layers": 3}}
    loss, acc = found["metrics"]
    assert (loss["key"], loss["count"], loss["not_finite"], loss["first"], loss["last"]) == ("loss", 3, 2, 0.5, "inf")
    assert (acc["min"], acc["max"], acc["min_step"], acc["max_step"]) == (1, 3, 0, 2)
    assert (found["has_log"], found["diff"], found["damage"]) == (False, False, [])


def test_short_curve_is_exact_and_says_where_it_is_not_finite(page: PageProcess) -> None:
    (block,) = page.blocks("curves", run="p/short", key="loss")
    assert block.header["exact"] and block.header["kind"] == "curve" and block.header["x_range"] == [0, 2]
    assert block.columns["x"] == [0, 1, 2]
    assert block.columns["mean"][0] == 0.5 and all(map(math.isnan, block.columns["mean"][1:]))
    assert block.columns["not_finite"] == [0, 1, 1]


def test_long_curve_has_a_band(page: PageProcess) -> None:
    (block,) = page.blocks("curves", run="p/long", key="val/loss", buckets=10)
    assert block.header["rows"] == 10 and not block.header["exact"]
    low, mean, high = (block.columns[name] for name in ("min", "mean", "max"))
    assert low[0] == 0 and high[-1] == 999
    assert all(one <= two <= three for one, two, three in zip(low, mean, high, strict=True))


def test_curves_come_of_each_run_and_metric_that_is_there(page: PageProcess) -> None:
    found = page.blocks("curves", run=["p/long", "p/short", "gone"], key=["loss", "acc", "nothing"])
    assert {(one.header["run"], one.header["key"]) for one in found} == {
        ("p/long", "loss"),
        ("p/short", "loss"),
        ("p/short", "acc"),
    }
    many = blocks_in(page.post("curves", run=["p/long", "p/short"], key="loss").body)
    assert len(many) == 2


def test_server_writes_nothing_to_runs(runs: Path, page: PageProcess) -> None:
    before = listing_of(runs)
    rows_of(page)
    for name in ("p/long", "p/short"):
        page.get("run", run=name)
        page.blocks("curves", run=name, key="loss")
    assert listing_of(runs) == before
