"""HTML reprs: what a notebook shows for a run and for runs: static, small, and safe whatever a run is named."""

from __future__ import annotations

import math
import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import asynctrack

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Seen(HTMLParser):
    """The tags, attributes and texts of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def html_of(shown: Any) -> Seen:
    html = shown._repr_html_()
    assert html is not None
    return Seen(html)


def train(dir: Path, id: str, **config: Any) -> asynctrack.Run:
    run = asynctrack.init("p", id=id, dir=dir, config=config, backends=[], quiet=True)
    for step in range(200):
        run.log({"loss": 1 / (step + 1), "train": {"acc": math.nan if 20 <= step < 30 else step / 200}}, step=step)
    return run


def test_run_shows_its_metrics_with_their_course_while_it_is_open_and_after(tmp_path: Path) -> None:
    with train(tmp_path, "a", lr=0.1) as run:
        run.flush("journaled")
        seen = html_of(run)
        assert {"p/a", "loss", "train/acc", "0.005"} <= {*seen.texts}
        assert any("running" in text for text in seen.texts) and any("lr = 0.1" in text for text in seen.texts)
        assert seen.tags.count("svg") == 2 and seen.tags.count("polyline") == 3  # NaN interrupts one of the lines
    assert any("finished" in text for text in html_of(asynctrack.open_run(tmp_path / "p" / "a")).texts)
    assert repr(run).startswith("<Run p/a, finished")


def test_runs_show_what_differs_and_how_each_went(tmp_path: Path) -> None:
    for id, lr in (("a", 0.1), ("b", 0.2)):
        train(tmp_path, id, lr=lr, same=1).finish()
    seen = html_of(asynctrack.runs(tmp_path))
    assert {"p/a", "p/b", "lr", "0.1", "0.2", "loss"} <= {*seen.texts} and "same" not in seen.texts
    assert seen.tags.count("svg") == 2
    assert html_of(asynctrack.runs(tmp_path, where="lr > 1")).texts == ["no runs"]
    assert html_of(asynctrack.runs(tmp_path)[:1]).texts.count("p/b") == 1


def test_nothing_that_a_run_says_becomes_markup(tmp_path: Path) -> None:
    with asynctrack.init("p", id="a", dir=tmp_path, name=EVIL, config={EVIL: EVIL}, backends=[], quiet=True) as run:
        run.log({EVIL: 1.0, f"{EVIL}2": "text"})
        run.log({EVIL: 2.0})
        run.flush("journaled")
        shown = [html_of(run), html_of(asynctrack.runs(tmp_path))]
    for seen in shown:
        assert {*seen.tags} <= {
            "div",
            "b",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "svg",
            "polyline",
            "polygon",
            "circle",
        }
        assert not any(name.startswith("on") or name in ("style", "href", "src") for name in seen.attributes)
        assert any(EVIL[:40] in text for text in seen.texts)


@pytest.mark.parametrize("values", [[math.nan], [math.inf, 1.0], [1e308, -1e308], [5], [0.0] * 70, [2**62, 2**63]])
def test_odd_numbers_are_shown(tmp_path: Path, values: list[float]) -> None:
    with asynctrack.init("p", id="a", dir=tmp_path, backends=[], quiet=True) as run:
        for value in values:
            run.log({"x": value})
    html = asynctrack.open_run(tmp_path / "p" / "a")._repr_html_()
    assert html is not None and "nan," not in html and ",nan" not in html and "inf," not in html


def test_a_run_without_metrics_and_one_without_files_are_shown(tmp_path: Path) -> None:
    asynctrack.init("p", id="a", dir=tmp_path, backends=[], quiet=True).finish()
    assert "p/a" in html_of(asynctrack.open_run(tmp_path / "p" / "a")).texts
    with asynctrack.init("p", dir=tmp_path, mode="disabled") as run:
        assert run._repr_html_() is None


def test_a_run_is_shown_right_after_it_was_opened_and_when_its_files_are_gone(tmp_path: Path) -> None:
    with asynctrack.init("p", id="a", dir=tmp_path, backends=[], quiet=True) as run:
        assert "p/a" in html_of(run).texts
    shutil.rmtree(run.path)
    assert run._repr_html_() is None and repr(run).startswith("<Run p/a, finished")


def test_a_damaged_run_is_shown_by_its_text(tmp_path: Path) -> None:
    train(tmp_path, "a").finish()
    reader, runs = asynctrack.open_run(tmp_path / "p" / "a"), asynctrack.runs(tmp_path)
    assert len(runs) == 1
    for file in (tmp_path / "p" / "a").rglob("*"):
        if file.is_file():
            file.write_bytes(b"\0" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reader._repr_html_() is None or "p/a" in html_of(reader).texts
        assert "p/a" in html_of(runs).texts


def test_many_metrics_and_runs_stay_a_small_table(tmp_path: Path) -> None:
    with asynctrack.init("p", id="a", dir=tmp_path, backends=[], quiet=True) as run:
        for step in range(300):
            run.log({f"m{at}": step * at for at in range(100)})
    html = asynctrack.open_run(tmp_path / "p" / "a")._repr_html_()
    assert html is not None and len(html) < 40_000 and "and 88 more metrics" in html


def test_ipython_shows_a_run_as_html_beside_its_text(tmp_path: Path) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    train(tmp_path, "a").finish()
    shown, _ = formatters.DisplayFormatter().format(asynctrack.open_run(tmp_path / "p" / "a"))
    assert "<svg" in shown["text/html"] and shown["text/plain"].startswith("<RunReader")
