"""The page's server says of runs what they are, quickly, while they go on, and writes nothing."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy
import PIL.Image
import pytest
from page_server import EventStream, PageProcess, blocks_in, listing_of, made_runs, page_of, rows_of
from support import wait_until

import asynctrack
from asynctrack.testing import JournaledRun

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


def test_answers_have_the_date(page: PageProcess) -> None:
    told = parsedate_to_datetime(page.get("runs").headers["date"])
    assert abs(told.timestamp() - time.time()) < 5


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


# Live runs


@pytest.mark.system
def test_page_is_told_when_a_run_grows_and_ends(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "live") as run, page_of(tmp_path) as page:
        run.log({"loss": 1.0}, 0)
        run.journal()
        assert rows_of(page)["p/live"]["records"] == 1
        events = EventStream(page, run="p/live")
        events.next("run", run="p/live", records=1)
        run.log({"loss": 0.5}, 1)
        run.journal()
        told = events.next("run", run="p/live", records=2)
        assert told["step"] == 1
        (block,) = page.blocks("curves", run="p/live", key="loss")
        assert block.columns["mean"] == [1.0, 0.5]
        version = page.get("runs").json()["version"]
        run.end_ring()
        run.end()
        events.next("run", run="p/live", status="finished")
        assert [row["status"] for row in page.get("runs", since=version).json()["runs"]] == ["finished"]
        events.close()


@pytest.mark.system
def test_run_that_comes_and_one_that_goes_are_told(tmp_path: Path) -> None:
    made_runs(tmp_path, {"p/a": SHORT})
    with page_of(tmp_path) as page:
        first = page.get("runs").json()
        events = EventStream(page)
        events.next("runs")
        made_runs(tmp_path, {"p/b": SHORT})
        wait_until(lambda: "p/b" in rows_of(page), "the new run is listed")
        assert events.next("runs")["version"] > first["version"]
        shutil.rmtree(tmp_path / "p" / "a")
        wait_until(lambda: page.get("runs", since=first["version"]).json()["removed"] == ["p/a"], "the other has gone")
        assert page.get("run", run="p/a").status == 404
        events.close()


@pytest.mark.system
def test_run_is_found_by_its_key_though_nobody_has_listed_it_yet(tmp_path: Path) -> None:
    made_runs(tmp_path, {"p/a": SHORT})
    with page_of(tmp_path) as page:
        assert page.get("run", run="p/a").status == 200
        made_runs(tmp_path, {"p/b": SHORT})
        wait_until(lambda: page.get("run", run="p/b").status == 200, "the new run is there")


def test_poll_says_what_a_stream_would(page: PageProcess) -> None:
    rows_of(page)
    found = page.get("events", poll=2, run="p/short").json()
    assert found["runs"] == [{"run": "p/short", "records": 3, "step": 2, "status": "finished"}]
    assert found["version"] == page.get("runs").json()["version"]


# What else is asked


def test_runs_are_selected_and_sorted_by_expressions(page: PageProcess) -> None:
    rows_of(page)
    found = page.get("select", where="max(loss) > 0.4 and project == 'p'", sort="-records").json()
    assert found["runs"] == ["p/long", "p/short"]
    long = page.post("select", where="lr < 1 or " * 10_000)
    assert (long.status, "at most 20000 characters; got 99999" in long.error) == (400, True)
    wrong = page.get("select", where="lr <")
    assert (wrong.status, wrong.json()["at"]) == (400, 5)
    assert "expected" in wrong.error
    assert sorted(page.get("select").json()["runs"]) == ["p/long", "p/short", "q/short"]


def test_number_of_a_live_run_counts_in_expressions_as_it_stands(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "live") as run, page_of(tmp_path) as page:
        run.log({"loss": 1.0}, 0)
        run.journal()
        rows_of(page)
        assert page.get("select", where="min(loss) < 0.7").json()["runs"] == []
        run.log({"loss": 0.5}, 1)
        run.journal()
        assert page.get("select", where="min(loss) < 0.7").json()["runs"] == ["p/live"]


def test_only_what_differs_is_compared(page: PageProcess) -> None:
    rows_of(page)
    found = page.get("compare", run=["p/short", "p/long"]).json()
    assert found["runs"] == ["p/short", "p/long"]
    assert found["config"] == {"model/layers": [3, 1000]}


def test_statistics_of_several_runs_come_at_once(page: PageProcess) -> None:
    found = page.get("metrics", run=["p/short", "p/long"]).json()["runs"]
    assert [metric["key"] for metric in found["p/long"]] == ["loss", "val/loss"]
    assert found["p/short"][1]["mean"] == 2


def test_group_has_the_mean_of_all_runs(tmp_path: Path) -> None:
    made_runs(tmp_path, {"p/a": [{"loss": 1.0}, {"loss": 2.0}], "p/b": [{"loss": 3.0}, {"loss": 4.0}]})
    with page_of(tmp_path) as page:
        (block,) = page.blocks("groups", run=["p/a", "p/b"], key="loss", buckets=2)
        (zoomed,) = page.blocks("groups", run=["p/a", "p/b"], key="loss", buckets=2, x0=0.5, x1=5)
    assert block.header["x_range"] == zoomed.header["x_range"] == [0, 1]
    assert block.header["kind"] == "group"
    assert block.columns["mean"] == [2.0, 3.0] and block.columns["runs"] == [2, 2]
    assert block.columns["min"] == [1.0, 2.0] and block.columns["max"] == [3.0, 4.0]


def test_sparkline_is_of_the_first_metric(page: PageProcess) -> None:
    found = {one.header["run"]: one for one in page.blocks("sparklines", run=["p/long", "p/short"])}
    assert found["p/long"].header["rows"] == 40 and {one.header["key"] for one in found.values()} == {"loss"}


def test_csv_has_all_values(page: PageProcess) -> None:
    answer = page.get("csv", run=["p/long", "q/short"], key=["loss", "acc"])
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert answer.headers["content-disposition"].startswith("attachment")
    assert rows[0] == ["run", "step", "time", "loss", "acc"]
    assert len(rows) == 1 + len(LONG) + 1
    assert [rows[1][0], rows[1][1], rows[1][3], rows[1][4]] == ["p/long", "0", "1.0", ""]
    assert rows[-1][0] == "q/short"


def test_log_has_its_last_lines(tmp_path: Path) -> None:
    made_runs(tmp_path, {"p/a": SHORT})
    (tmp_path / "p" / "a" / "worker.log").write_text("first line\nsecond line\nthird line\n")
    with page_of(tmp_path) as page:
        assert page.get("log", run="p/a").body == b"first line\nsecond line\nthird line\n"
        assert page.get("log", run="p/a", bytes=25).body == b"second line\nthird line\n"
        assert page.get("run", run="p/a").json()["has_log"]
        assert page.get("diff", run="p/a").status == 404


def test_resumes_and_checkpoints_are_told_with_their_steps(tmp_path: Path, own_host: Path) -> None:
    with asynctrack.init("p", id="a", dir=tmp_path, backends=[]) as run:
        for step in range(5):
            run.log({"loss": 1.0}, step)
    with asynctrack.init("p", id="a", dir=tmp_path, backends=[], resume="must") as run:
        for step in (3, 4, 5):
            run.log({"loss": 0.5}, step)
        run.checkpoint(epoch=7)
        run.log({"loss": 0.5}, 6)
        run.config["late"] = True
    with page_of(tmp_path) as page:
        found = page.get("run", run="p/a").json()
    assert [one["step"] for one in found["sessions"]] == [0, 3]
    (checkpoint,) = found["checkpoints"]
    assert (checkpoint["step"], checkpoint["counters"]) == (5, {"epoch": 7})
    assert (found["config"], found["stats"]["journaled"], found["stats"]["accepted"]) == ({"late": True}, 9, 9)
    assert [one["status"] for one in found["writers"]] == ["finished", "finished"]


# Media


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    directory = tmp_path_factory.mktemp("media") / "runs"
    records: list[dict[str, Any]] = [{"loss": float(step)} for step in range(500)]
    pixels = numpy.arange(2 * 3 * 3, dtype="u1").reshape(2, 3, 3)
    records[100]["sample"] = asynctrack.Image(pixels, caption="</script><script>alert(1)</script>")
    records[200]["sample"] = asynctrack.Image(pixels + 1)
    records[300]["page"] = asynctrack.Html("<script>alert(1)</script><p>done</p>")
    records[301]["errors"] = asynctrack.Table(["step", "what"], [[7, "NaN"], [9, math.inf]])
    records[302]["nested"] = {"weights": asynctrack.Histogram([1.0, 2.0, 2.0], num_bins=2)}
    records[303]["note"] = asynctrack.Text("a text")
    made_runs(directory, {"p/a": records})
    with page_of(directory) as found:
        yield found


def test_media_are_listed_by_key(media: PageProcess) -> None:
    found = {one["key"]: (one["kind"], one["count"]) for one in media.get("run", run="p/a").json()["media"]}
    assert found == {
        "sample": ("image", 2),
        "page": ("html", 1),
        "errors": ("table", 1),
        "nested/weights": ("histogram", 1),
        "note": ("text", 1),
    }


def test_images_come_by_step_and_their_files_by_hash(media: PageProcess) -> None:
    found = media.get("media", run="p/a", key="sample").json()
    assert found["count"] == 2 and [one["step"] for one in found["items"]] == [100, 200]
    assert found["items"][0]["caption"] == "</script><script>alert(1)</script>"
    (later,) = media.get("media", **{"run": "p/a", "key": "sample", "from": 1, "n": 1}).json()["items"]
    assert later == found["items"][1]
    file = media.get("media/file", run="p/a", sha256=later["sha256"])
    assert (file.status, file.headers["content-type"]) == (200, "image/png")
    image = PIL.Image.open(io.BytesIO(file.body))
    assert image.size == (3, 2) and image.getpixel((0, 0)) == (1, 2, 3)


def test_tables_and_histograms_come_with_their_numbers(media: PageProcess) -> None:
    (table,) = media.get("media", run="p/a", key="errors").json()["items"]
    assert (table["columns"], table["rows"], table["row_count"]) == (["step", "what"], [[7, "NaN"], [9, "inf"]], 2)
    (histogram,) = media.get("media", run="p/a", key="nested/weights").json()["items"]
    assert (histogram["counts"], len(histogram["edges"])) == ([1, 2], 3)
    assert media.get("media", run="p/a", key="nothing").json() == {"items": [], "count": 0}


def test_page_that_was_logged_runs_no_script(media: PageProcess) -> None:
    (item,) = media.get("media", run="p/a", key="page").json()["items"]
    target = f"/api/media/file?run=p/a&sha256={item['sha256']}"
    file = media.ask(target)
    assert file.body == b"<script>alert(1)</script><p>done</p>"
    policy = file.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'") and "script" not in policy
    assert media.ask(f"{target}&scripts=1").headers["content-security-policy"] == policy
    framed = media.ask(f"{target}&scripts=1", Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="iframe")
    assert framed.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in framed.headers["content-security-policy"]


# What is broken


def test_broken_runs_are_told_and_the_others_shown(tmp_path: Path) -> None:
    made_runs(tmp_path, {"p/good": SHORT, "p/torn": LONG, "p/newer": SHORT, "p/nothing": SHORT})
    (segment,) = (tmp_path / "p" / "torn" / "journal").iterdir()
    content = bytearray(segment.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = os.urandom(4000)
    segment.write_bytes(content)
    said = tmp_path / "p" / "newer" / "run.json"
    said.write_text(said.read_text().replace('"version": 1', '"version": 99'))
    shutil.rmtree(tmp_path / "p" / "nothing" / "journal")
    (tmp_path / "p" / "empty").mkdir()
    (tmp_path / "p" / "empty" / "run.json").touch()
    with page_of(tmp_path) as page:
        rows = rows_of(page)
        assert {key: row["status"] for key, row in rows.items()} == {
            "p/good": "finished",
            "p/torn": "damaged",
            "p/newer": "unreadable",
            "p/nothing": "damaged",
            "p/empty": "damaged",
        }
        for key in rows:
            found = page.get("run", run=key)
            assert found.status == 200, (key, found)
            assert bool(found.json()["damage"]) == (key != "p/good"), key
            assert page.get("curves", run=key, key="loss").status == 200
            assert page.get("csv", run=key, key="loss").status == 200
            assert page.get("media", run=key, key="x").status == 200
        assert "p/good" in {one.header["run"] for one in page.blocks("curves", run=list(rows), key="loss")}
        assert page.blocks("groups", run=list(rows), key="loss")[0].header["rows"] > 0
        assert page.get("select", where="max(acc) > 2").json()["runs"] == ["p/good"]
        assert page.get("select", sort="max(acc)").json()["runs"][0] == "p/good"
        for name in ("compare", "metrics"):
            assert page.get(name, run=list(rows)).status == 200


@pytest.mark.system
def test_runs_whose_names_are_alike_have_keys_of_their_own(tmp_path: Path) -> None:
    made_runs(tmp_path, {"one/p/a": SHORT, "two/p/a": SHORT[:1]})
    with page_of(tmp_path / "one", tmp_path / "two") as page:
        rows = rows_of(page)
        assert rows.keys() == {"p/a", "p/a (2)"}
        assert {row["records"] for row in rows.values()} == {1, 3}


@pytest.mark.system
def test_runs_are_named_as_other_commands_name_them(runs: Path) -> None:
    with page_of("long", runs / "q", "--dir", runs) as page:
        assert rows_of(page).keys() == {"p/long", "q/short"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_runs_of_others_are_counted(tmp_path: Path) -> None:
    made_runs(tmp_path, {"p/a": SHORT, "p/b": SHORT})
    (tmp_path / "p" / "b").chmod(0)
    with page_of(tmp_path) as page:
        assert rows_of(page).keys() == {"p/a"}
        (problem,) = page.get("runs").json()["problems"]
    assert "1 run that you may not read" in problem
    (tmp_path / "p" / "b").chmod(0o755)


@pytest.mark.system
def test_directory_that_is_not_there_yet_is_watched(tmp_path: Path) -> None:
    with page_of("--dir", tmp_path / "later") as page:
        assert rows_of(page) == {}
        made_runs(tmp_path / "later", {"p/a": SHORT})
        wait_until(lambda: rows_of(page).keys() == {"p/a"}, "the run is listed")
