"""HTML export: runs and the page in one file, which asks nobody for anything, and in which no name becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from exported_page import ExportedPage, browser_page
from support import wait_until

import asynctrack
from asynctrack import cli

EVIL = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def train(runs: Path, id: str, steps: int = 50, **more: Any) -> Path:
    with asynctrack.init("p", id=id, dir=runs, backends=[], quiet=True, **more) as run:
        for step in range(steps):
            run.log({"loss": 1 / (step + 1), "train": {"acc": math.nan if step == 3 else step / steps}}, step=step)
    return run.path


def exported(tmp_path: Path, *places: object) -> ExportedPage:
    file = tmp_path / "page.html"
    assert cli.main(["ui", "--export", str(file), "--force", *map(str, places)]) == 0
    return ExportedPage(file.read_text(encoding="utf-8"))


def test_file_has_runs_in_their_order_with_all_that_the_page_asks_for(tmp_path: Path) -> None:
    for id, lr in (("a", 0.1), ("b", 0.2)):
        train(tmp_path / "runs", id, config={"lr": lr}, tags=["t"])
    found = exported(tmp_path, tmp_path / "runs")
    assert [run["row"]["run"] for run in found.index["runs"]] == ["p/b", "p/a"]
    document = found.document(1)
    assert (document["config"], document["status"], document["tags"]) == ({"lr": 0.1}, "finished", ["t"])
    assert [metric["key"] for metric in document["metrics"]] == ["loss", "train/acc"]
    assert found.curve("loss", run=1) == {"x": list(range(50)), "mean": [1 / (step + 1) for step in range(50)]}
    acc = found.curve("train/acc", "time", run=1)
    assert acc["not_finite"].index(1) == 3 and math.isnan(acc["mean"][3]) and acc["mean"][4] == 4 / 50
    assert "Curves have 4,000 points at most" in found.index["note"] and found.index["start"] == "#/"


def test_long_curve_is_summed_up_and_no_number_lies_outside(tmp_path: Path) -> None:
    values = [math.sin(step / 100) + (30.0 if step == 7777 else 0.0) for step in range(20_000)]
    with asynctrack.init("p", id="a", dir=tmp_path / "runs", backends=[], quiet=True, when_full="block") as run:
        for step, value in enumerate(values):
            run.log({"loss": value}, step=step)
    found = exported(tmp_path, run.path)
    curve = found.curve("loss")
    assert found.index["start"] == "#/run/p/a"
    assert len(curve["x"]) == 4000 and len(found.curve("loss", "time")["x"]) <= 1000
    whole = asynctrack.open_run(run.path).curve("loss", buckets=4000)
    at = 7777 // 5
    assert curve["max"][at] >= 30.0 - 2 and curve["max"][at] == max(curve["max"])
    assert all(low <= value <= high for low, value, high in zip(curve["min"], whole.mean, curve["max"], strict=True))


def test_policy_lets_nothing_run_but_the_scripts_of_the_file(tmp_path: Path) -> None:
    found = exported(tmp_path, train(tmp_path / "runs", "a"))
    (unpacking,), script, style = found.contents("script"), found.text("script").decode(), found.text("style").decode()
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (unpacking, script, style)]
    assert {*re.findall(r"'sha256-[^']+'", found.policy)} == {f"'sha256-{one}'" for one in hashes}
    assert found.policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in found.policy
    assert "connect-src" not in found.policy and "base-uri 'none'" in found.policy
    assert not {"link", "iframe", "img", "object", "embed", "form", "base"} & {*found.tags}


def test_nothing_of_a_run_ends_an_element_or_begins_one(tmp_path: Path) -> None:
    with asynctrack.init(
        "p", id="a", dir=tmp_path / "runs", name=EVIL, config={EVIL: EVIL}, backends=[], quiet=True
    ) as run:
        run.log({EVIL: 1.0, "text": EVIL})
        run.summary[EVIL] = EVIL
        run.tags, run.notes = [EVIL], EVIL
    found = exported(tmp_path, run.path)
    text = (tmp_path / "page.html").read_text()
    assert "alert(1)</script>" not in text and "<img src=x" not in text
    assert found.tags == exported(tmp_path, train(tmp_path / "runs", "b")).tags
    assert (found.index["runs"][0]["row"]["name"], found.document()["config"]) == (EVIL, {EVIL: EVIL})
    assert found.curve(EVIL)["mean"] == [1.0]


def test_file_does_not_say_where_it_comes_from(tmp_path: Path) -> None:
    path = train(tmp_path / "runs", "a")
    (path / "worker.log").write_text("secret")
    (path / "uncommitted.diff").write_text("secret")
    found = exported(tmp_path, path)
    document = found.document()
    assert (document["has_log"], document["diff"], "path" in document) == (False, False, False)
    assert str(tmp_path) not in (tmp_path / "page.html").read_text()


def test_run_without_a_journal_a_live_one_and_a_damaged_one_are_there(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with asynctrack.init("p", id="lost", dir=runs, backends=["jsonl"], quiet=True) as run:
        run.log({"loss": 1.0})
    for file in (run.path / "journal").iterdir():
        file.unlink()
    (run.path / "journal").rmdir()
    damaged = train(runs, "damaged")
    for file in [*(damaged / "journal").iterdir(), damaged / "run.json"]:
        file.write_bytes(b"\0" * 100)
    with asynctrack.init("p", id="live", dir=runs, backends=[], quiet=True) as live:
        live.log({"loss": 1.0})
        live.flush("journaled")
        found = exported(tmp_path, runs)
    rows = {run["row"]["id"]: run["row"]["status"] for run in found.index["runs"]}
    assert rows.keys() == {"lost", "damaged", "live"} and rows["live"] == "running"
    at = [run["row"]["id"] for run in found.index["runs"]].index("live")
    assert found.curve("loss", run=at)["mean"] == [1.0]


def test_many_runs_and_metrics_stay_a_small_file(tmp_path: Path) -> None:
    with asynctrack.init("p", id="wide", dir=tmp_path / "wide", backends=[], quiet=True, when_full="block") as run:
        for step in range(2000):
            run.log({f"m/{at}": math.sin(step * (at + 1)) for at in range(100)}, step=step)
    exported(tmp_path, tmp_path / "wide")
    frame = 260_000
    assert (tmp_path / "page.html").stat().st_size < frame + 100 * 26_000


def test_file_appears_whole_and_replaces_one_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = train(tmp_path / "runs", "a"), tmp_path / "page.html"
    assert cli.main(["ui", "--export", str(file), str(path)]) == 0
    assert re.fullmatch(rf"{re.escape(str(file))}: 1 run, \d+ kB\n", capsys.readouterr().out)
    assert cli.main(["ui", "--export", str(file), str(path)]) == 2
    assert "exists; --force replaces it" in capsys.readouterr().err
    assert cli.main(["ui", "--export", str(tmp_path / "no" / "x.html"), str(path)]) == 2
    assert "an existing folder" in capsys.readouterr().err
    assert cli.main(["ui", "--export", str(tmp_path), str(path)]) == 2
    (tmp_path / "empty").mkdir()
    assert cli.main(["ui", "--export", str(tmp_path / "y.html"), str(tmp_path / "empty")]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_file()) == ["page.html"]


def with_media(runs: Path) -> Path:
    with asynctrack.init("p", id="media", dir=runs, backends=[], quiet=True) as run:
        for step in range(40):
            run.log({"shot": asynctrack.Image(pixels(step, 2), caption=f"{EVIL} {step}")}, step=step)
        run.log({"rows": asynctrack.Table(columns=["a", EVIL], data=[[1, EVIL], [2.5, None]])}, step=1)
        run.log({"bars": asynctrack.Histogram([1.0, 2.0, 2.0, 3.0])}, step=2)
        run.log({"words": asynctrack.Text(f"hello {EVIL}"), "page": asynctrack.Html("<b>bold</b>")}, step=3)
        run.log({"large": asynctrack.Image(pixels(1, 700))}, step=4)
    return run.path


def pixels(seed: int, size: int) -> Any:
    numpy = pytest.importorskip("numpy")
    return numpy.random.default_rng(seed).integers(0, 255, (size, size), dtype=numpy.uint8)


def test_small_media_are_there_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    found = exported(tmp_path, with_media(tmp_path / "runs"))
    media = {one["key"]: (one["kind"], one["count"]) for one in found.document()["media"]}
    assert media == {"shot": ("image", 16), "rows": ("table", 1), "bars": ("histogram", 1), "words": ("text", 1)}
    line = dict(found.index["runs"][0]["media"])["shot"]
    items = json.loads(found.unpacked(0, line))["items"]
    assert (items[0]["step"], items[-1]["step"], items[-1]["caption"]) == (0, 39, f"{EVIL} 39")
    assert {kind for _, kind, _ in found.index["runs"][0]["files"]} == {"image/png", "text/plain; charset=utf-8"}
    assert "not in this file, nor are 26 images, files or other media." in found.index["note"]


# In a browser


def lines_drawn(page: Any) -> int:
    """How many charts have something in the colour of a line."""
    count = page.evaluate(
        """() => [...document.querySelectorAll(".plot canvas")].filter((canvas) => {
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, 0, 0);
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
          let coloured = 0;
          for (let at = 0; at < data.length; at += 4)
            coloured += data[at + 3] > 200 && Math.max(data[at], data[at + 1], data[at + 2]) - Math.min(data[at], data[at + 1], data[at + 2]) > 60;
          return coloured > 50;
        }).length"""
    )
    assert isinstance(count, int)
    return count


def wait_for_lines(page: Any, count: int) -> None:
    page.wait_for_selector(".plot canvas")
    wait_until(lambda: lines_drawn(page) == count, f"{count} charts have lines")


@pytest.mark.system
@pytest.mark.parametrize("name", ["plain", EVIL], ids=["plain", "evil"])
def test_browser_shows_runs_a_run_and_a_comparison_from_the_file(tmp_path: Path, name: str) -> None:
    for id, lr in (("a", 0.1), ("b", 0.2)):
        train(tmp_path / "runs", id, name=f"{name} {id}", config={"lr": lr, name: name}, tags=[name])
    exported(tmp_path, tmp_path / "runs")
    url = (tmp_path / "page.html").as_uri()
    with browser_page() as (page, complaints):
        page.goto(url)
        page.get_by_text(f"{name} a").first.wait_for()
        assert "exported" in page.inner_text("header")
        page.get_by_text(f"{name} a").first.click()
        wait_for_lines(page, 2)
        assert page.title().startswith("p/a") and "Curves have 4,000 points at most" in page.inner_text("footer")
        page.goto(f"{url}#/run/p/a?tab=config")
        page.get_by_text(name, exact=True).first.wait_for()
        page.goto(f"{url}#/compare/?run=p/a&run=p/b")
        wait_for_lines(page, 2)
        assert complaints == []


@pytest.mark.system
def test_zoom_in_the_file_says_that_it_shows_what_was_exported(tmp_path: Path) -> None:
    with asynctrack.init("p", id="a", dir=tmp_path / "runs", backends=[], quiet=True, when_full="block") as run:
        for step in range(20_000):
            run.log({"loss": math.sin(step / 1000)}, step=step)
    exported(tmp_path, run.path)
    with browser_page() as (page, complaints):
        page.goto(f"{(tmp_path / 'page.html').as_uri()}#/run/p/a?zoom=1000,1100")
        wait_for_lines(page, 1)
        page.get_by_text("as exported", exact=True).wait_for()
        for x in ("time", "relative"):
            page.goto(f"{(tmp_path / 'page.html').as_uri()}#/run/p/a?x={x}")
            wait_for_lines(page, 1)
        assert complaints == []


@pytest.mark.system
def test_browser_shows_media_of_the_file(tmp_path: Path) -> None:
    exported(tmp_path, with_media(tmp_path / "runs"))
    with browser_page() as (page, complaints):
        page.goto(f"{(tmp_path / 'page.html').as_uri()}#/run/p/media?tab=media")
        wait_until(lambda: page.evaluate("() => document.querySelector('img')?.naturalWidth === 2"), "it is decoded")
        page.get_by_text(f"hello {EVIL}").wait_for()
        page.locator("svg.bars").wait_for()
        page.get_by_role("cell", name=EVIL, exact=True).wait_for()
        page.locator("input[type=range]").first.fill("0")
        page.get_by_text(f"{EVIL} 0", exact=True).wait_for()
        assert complaints == []


@pytest.mark.system
def test_browser_opens_two_hundred_runs(tmp_path: Path) -> None:
    for at in range(200):
        train(tmp_path / "runs", f"r{at}", steps=20, config={"lr": at / 1000})
    exported(tmp_path, tmp_path / "runs")
    keys = "&".join(f"run=p/r{at}" for at in range(200))
    with browser_page() as (page, complaints):
        page.goto((tmp_path / "page.html").as_uri())
        page.get_by_text("200 runs").first.wait_for()
        page.goto(f"{(tmp_path / 'page.html').as_uri()}#/compare/?{keys}")
        wait_for_lines(page, 2)
        assert complaints == []
    assert os.path.getsize(tmp_path / "page.html") < 2_500_000


# Asks the file for what the page asks for: JSON, or the columns of blocks.
ASK = """async ([path, query]) => {
  const source = globalThis.asynctrackData;
  try {
    if (!["curves", "groups", "sparklines"].includes(path)) return await source.json(path, query);
    const found = [];
    for await (const { columns, ...header } of source.blocks(path, query))
      found.push({ ...header, columns: Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, [...column]])) });
    return found;
  } catch (error) {
    return { refused: error.message, status: error.status };
  }
}"""


@pytest.mark.system
def test_file_answers_as_the_server_does(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for at in range(3):
        with asynctrack.init("p", id=f"r{at}", dir=runs, config={"lr": at, "same": 1}, backends=[], quiet=True) as run:
            for step in range(0, 200, at + 1):
                run.log({"loss": math.sin(step / 20) + at, "epoch": step / 50}, step=step)
    exported(tmp_path, runs)
    keys = [f"p/r{at}" for at in range(3)]
    with browser_page() as (page, complaints):
        page.goto((tmp_path / "page.html").as_uri())
        page.get_by_text("3 runs").first.wait_for()

        def ask(path: str, **query: object) -> Any:
            return page.evaluate(ASK, [path, query])

        (group,) = ask("groups", run=keys, key="loss", buckets=50)
        wanted = asynctrack.curve_of_runs([runs / key for key in keys], "loss", buckets=50)
        for name in ("x", "mean", "deviation", "min", "max", "runs"):
            assert group["columns"][name] == pytest.approx(list(getattr(wanted, name)), abs=1e-9), name
        (against,) = ask("curves", run="p/r1", key="loss", x="epoch")
        curve = asynctrack.open_run(runs / "p" / "r1").curve("loss", "epoch")
        assert against["columns"] == {"x": list(curve.x), "mean": list(curve.mean)}
        (relative,) = ask("curves", run="p/r0", key="loss", x="relative")
        assert relative["columns"]["x"][0] == 0 and relative["axis"] == "relative"
        (window,) = ask("curves", run="p/r0", key="loss", x0=10, x1=12)
        assert window["columns"]["x"] == [9, 10, 11, 12, 13] and window["x_range"] == [0, 199]
        assert ask("compare", run=keys)["config"] == {"lr": [0, 1, 2]}
        assert [len(one["columns"]["x"]) for one in ask("sparklines", run=keys)] == [40, 34, 34]
        assert ask("curves", run="p/r0", key="loss", history="all")["refused"].startswith(
            "An exported file has nothing"
        )
        assert ask("select", where="lr > 1")["status"] == 400
        assert ask("run", run="p/none") == {"refused": "This file does not have that run.", "status": 404}
        assert complaints == []


def test_what_was_written_is_said_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "runs", "a")
    file = tmp_path / "page.html"
    assert cli.main(["ui", "--export", str(file), str(tmp_path / "runs"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "runs": ["p/a"], "bytes": file.stat().st_size}
