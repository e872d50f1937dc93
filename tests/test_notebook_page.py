"""`asynctrack.show`: a notebook shows the page with runs in it, in a frame, without a server."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exported_page import ExportedPage, browser_page
from jupyter_client.manager import start_new_kernel
from support import DEADLINE_S
from test_html_export import EVIL, train, wait_for_lines

import asynctrack
from asynctrack import errors


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def page_in(shown: str) -> ExportedPage:
    (source,) = re.findall(r'<iframe [^>]*srcdoc="([^"]*)"', shown)
    return ExportedPage(html.unescape(source))


def keys_of(shown: asynctrack.ui.notebook.ShownRuns) -> list[str]:  # type: ignore[name-defined]  # imported by `show`
    return [run["row"]["run"] for run in page_in(shown._repr_html_()).index["runs"]]


def test_runs_are_shown_by_whatever_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "asynctrack_runs"
    for id in ("a", "b"):
        train(runs, id)
    for one in ("a", "p/a", runs / "p" / "a", str(runs / "p" / "a"), asynctrack.open_run("a")):
        assert keys_of(asynctrack.show(one)) == ["p/a"]
    assert keys_of(asynctrack.show(["b", "a", "a"])) == ["p/b", "p/a"]
    assert keys_of(asynctrack.show(asynctrack.runs())) == ["p/b", "p/a"]
    assert keys_of(asynctrack.show("a", dir=runs)) == ["p/a"]


def test_open_run_is_shown_with_what_was_logged_just_now(tmp_path: Path) -> None:
    with asynctrack.init("p", id="a", dir=tmp_path, backends=[], quiet=True) as run:
        for step in range(30):
            run.log({"loss": step})
        page = page_in(asynctrack.show(run)._repr_html_())
    assert page.curve("loss")["mean"] == list(range(30))
    assert page.index["start"] == "#/run/p/a"


def test_frame_has_no_access_to_the_notebook_and_the_height_that_was_asked_for(tmp_path: Path) -> None:
    shown = asynctrack.show(train(tmp_path, "a", name=EVIL), height=444)._repr_html_()
    frame = shown[: shown.index("srcdoc")] + shown[shown.rindex('"', 0, shown.index('" sandbox') + 1) :]
    assert 'sandbox="allow-scripts allow-downloads"' in frame and 'height="444"' in frame
    assert frame.count("<") == 2 and frame.endswith("></iframe>")


def test_text_says_what_to_do_elsewhere_and_the_page_can_be_kept(tmp_path: Path) -> None:
    shown = asynctrack.show(train(tmp_path, "a"))
    assert repr(shown).startswith("<ShownRuns a: a notebook shows the page here. Elsewhere `asynctrack ui ")
    assert shown.save(tmp_path / "page.html") == tmp_path / "page.html"
    assert ExportedPage((tmp_path / "page.html").read_text()).index["start"] == "#/run/p/a"


def test_what_cannot_be_shown_is_said_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(errors.NotARun):
        asynctrack.show(tmp_path / "nothing")
    with pytest.raises(errors.InvalidSettings, match="got none"):
        asynctrack.show([])
    with pytest.raises(errors.InvalidSettings, match="height must be a positive number of pixels; got 0"):
        asynctrack.show(train(tmp_path, "a"), height=0)
    for wrong in (3, [3]):
        with pytest.raises(errors.InvalidValueType, match=r"show\(\) takes runs, .*; got int"):
            asynctrack.show(wrong)  # type: ignore[arg-type]  # the mistake
    with asynctrack.init("p", dir=tmp_path, mode="disabled") as run, pytest.raises(errors.NotARun):
        asynctrack.show(run)


@pytest.fixture
def kernel(own_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    manager, client = start_new_kernel(startup_timeout=DEADLINE_S)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def shown_by(client: Any, cell: str) -> dict[str, str]:
    """What a notebook gets to show for a cell."""
    request, found = client.execute(cell), {}
    while True:
        message = client.get_iopub_msg(timeout=DEADLINE_S)
        if message["parent_header"].get("msg_id") != request:
            continue
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] in ("execute_result", "display_data"):
            found |= message["content"]["data"]
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return found


@pytest.mark.system
def test_cell_shows_the_page_in_a_frame_and_a_run_as_a_table(kernel: Any, tmp_path: Path) -> None:
    for id in ("a", "b"):
        train(tmp_path / "runs", id)
    shown = shown_by(
        kernel, f"import asynctrack; asynctrack.show(asynctrack.runs({str(tmp_path / 'runs')!r}), height=1200)"
    )
    assert shown["text/plain"].startswith("<ShownRuns b, a: ")
    table = shown_by(kernel, f"asynctrack.open_run({str(tmp_path / 'runs' / 'p' / 'a')!r})")
    assert "<svg" in table["text/html"]
    notebook = tmp_path / "notebook.html"
    notebook.write_text(
        f"<!doctype html><meta charset=utf-8><body>{shown['text/html']}{table['text/html']}", encoding="utf-8"
    )
    with browser_page(1100, 1500) as (page, complaints):
        page.goto(notebook.as_uri())
        frame = page.frame_locator("iframe")
        frame.locator("h3", has_text="acc").first.wait_for()
        inner = page.frames[1]
        wait_for_lines(inner, 2)
        frame.get_by_text("asynctrack", exact=True).click()
        frame.get_by_text("2 runs").first.wait_for()
        assert complaints == []
