"""The page of all runs: the table, its filter, order, selection and columns, and what it shows while runs go on."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from support import start, wait_until

from page.conftest import Server, Visitor, serving, visiting
from page.made_runs import HOSTILE

expect = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-page").expect
pytestmark = pytest.mark.system

RUNS = 20


def rows(page: Any) -> Any:
    return page.locator("tbody tr[aria-rowindex]")


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("tbody td.of-name").all_inner_texts()]


def test_table_has_every_run_with_its_status_and_what_differs(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server)
    expect(rows(page)).to_have_count(RUNS)
    expect(rows(page).filter(has_text="failed").first).to_contain_text("failed")
    expect(page.locator("thead")).to_contain_text("lr")
    assert "run-00" in names(page) and HOSTILE in names(page)


def test_filter_takes_words_and_expressions_and_stays_in_the_address(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server)
    expect(rows(page)).to_have_count(RUNS)
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.locator("#filter").fill("lr < 0.005 and layers >= 3")  # typed slowly, its beginning would be asked for too
    expect(rows(page)).to_have_count(4)
    page.wait_for_url(re.compile("q=lr"))
    page.reload()
    expect(rows(page)).to_have_count(4)
    page.locator("#filter").fill("spik")
    expect(rows(page)).to_have_count(1)
    page.locator("#filter").fill("")
    expect(rows(page)).to_have_count(RUNS)


def test_tag_leaves_the_runs_that_have_it(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server)
    page.get_by_role("button", name=re.compile("baseline")).click()
    expect(rows(page)).to_have_count(3)


def test_order_follows_a_click_on_a_column(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/?q=run-0")
    expect(rows(page)).to_have_count(10)
    head = page.locator("thead button[title='name: sort']")
    head.click()
    expect(page.locator("thead th[aria-sort]")).to_have_count(1)
    first = names(page)
    head.click()
    wait_until(lambda: names(page) == first[::-1], "the order is the other one")
    assert sorted(first) in (first, first[::-1])


def test_selected_runs_are_compared(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/?q=run-0")
    expect(rows(page)).to_have_count(10)  # while rows come, the fourth is another one each time
    rows(page).nth(0).get_by_role("checkbox").click()
    rows(page).nth(3).get_by_role("checkbox").click(modifiers=["Shift"])
    expect(page.locator("tbody tr[aria-selected=true]")).to_have_count(4)
    page.keyboard.press("c")
    page.wait_for_url(re.compile("#/compare/"))
    assert page.url.count("run=") == 4


def test_keyboard_opens_a_run(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/?q=spike")
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("j")
    expect(page.locator("tr.cursor")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#/run/long/spike"))


def test_saved_table_has_all_rows_and_no_formula(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server)
    expect(rows(page)).to_have_count(RUNS)
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    found = list(csv.reader(io.StringIO(Path(saved.value.path()).read_text())))
    assert len(found) == 1 + RUNS
    cells = [cell for row in found[1:] for cell in row]
    assert HOSTILE in cells and not [cell for cell in cells if cell.startswith(("=", "@"))]


def test_directory_without_runs_says_how_to_make_one(visitor: Visitor, tmp_path: Path) -> None:
    with serving(tmp_path) as empty:
        page = visitor.open(empty)
        expect(page.locator("main")).to_contain_text("no runs")
        expect(page.locator("main")).to_contain_text("asynctrack.init")
        page.close()  # a page that outlives its server says that it is gone


LIVE = """
import asynctrack, sys
for line in sys.stdin:
    name, count = line.split()
    run = asynctrack.init("live", id=name, dir=sys.argv[1], linger_s=0.01)
    for step in range(int(count)):
        run.log({"loss": 1.0 / (step + 1)}, step=step)
    print(name, flush=True)
    line = sys.stdin.readline()
    run.log({"loss": 7.0}, step=777)
    print(name, flush=True)
    sys.stdin.readline()
    run.finish()
    print("ended", flush=True)
"""


def test_runs_appear_grow_and_end_while_the_page_is_open(visitor: Visitor, tmp_path: Path) -> None:
    with start(LIVE, tmp_path) as logger:
        assert logger.stdin is not None and logger.stdout is not None

        def tell(line: str) -> None:
            logger.stdin.write(line + "\n")  # type: ignore[union-attr]
            logger.stdin.flush()  # type: ignore[union-attr]
            assert logger.stdout.readline()  # type: ignore[union-attr]

        with serving(tmp_path) as server:
            page = visitor.open(server)
            expect(page.locator("main")).to_contain_text("no runs")
            tell("growing 50")
            row = rows(page).filter(has_text="growing")
            expect(row).to_contain_text("running")
            tell("more")
            expect(row).to_contain_text("777")
            tell("end")
            expect(row).to_contain_text("finished")
            logger.stdin.close()
            page.close()
            assert logger.wait(20) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_narrow_screen(browser: Any, server: Server, scheme: Any) -> None:
    with visiting(browser, color_scheme=scheme) as visitor:
        visitor.page.set_viewport_size({"width": 400, "height": 800})
        page = visitor.open(server)
        expect(rows(page)).to_have_count(RUNS)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 384) == (scheme == "dark")
