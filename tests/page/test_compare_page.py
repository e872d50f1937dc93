"""The page that compares: curves over one another, groups, what differs, scatter and parallel coordinates."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from support import wait_until

from page.conftest import Server, Visitor
from page.test_run_page import COLOURED, chart, table_of, wait_for_curve

expect = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-page").expect
pytestmark = pytest.mark.system

SWEEP = [f"sweep/run-{at:02}" for at in range(12)]


def comparing(runs: list[str], **view: str) -> str:
    return "#/compare/?" + "&".join(
        [*(f"run={run}" for run in runs), *(f"{name}={value}" for name, value in view.items())]
    )


def test_runs_are_drawn_over_one_another(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP[:3]))
    wait_for_curve(chart(page, "loss"))
    labels = {row[0] for row in table_of(page, chart(page, "loss"))}
    assert len(labels) == 6  # three runs, two metrics
    assert all(any(run.removeprefix("sweep/") in label for label in labels) for run in SWEEP[:3])


def test_groups_have_a_mean_and_a_band_of_all_their_runs(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP))
    wait_for_curve(chart(page, "train/acc"))
    page.get_by_label("group by").select_option(label="lr")
    page.wait_for_url(re.compile("group="))
    wait_for_curve(chart(page, "train/acc"))
    wait_until(
        lambda: len({row[0] for row in table_of(page, chart(page, "train/acc"))}) == 4, "there are four groups", 20
    )
    for row in [row for row in table_of(page, chart(page, "train/acc")) if row[3] not in ("NaN", "nan", "–", "")]:
        assert float(row[3]) <= float(row[2]) <= float(row[4])


def test_differences_have_what_differs_and_nothing_else(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing([SWEEP[0], SWEEP[5]]))
    page.get_by_text("Differences", exact=True).click()
    config = page.locator("section", has=page.get_by_role("heading", name=re.compile("^Config")))
    expect(config).to_contain_text("lr")
    expect(config).not_to_contain_text("epochs")
    page.get_by_label("also what is the same").check()
    expect(config).to_contain_text("epochs")


def test_differences_are_saved_as_csv(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP[:3], view="differences"))
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    found = list(csv.reader(io.StringIO(Path(saved.value.path()).read_text())))
    assert len(found) == 4
    assert "config/lr" in found[0]


def test_scatter_has_a_point_for_each_run(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP, view="scatter"))
    expect(page.locator(".view svg circle")).to_have_count(len(SWEEP))


def test_parallel_coordinates_have_a_line_for_each_run(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP, view="parallel"))
    canvas = page.locator(".view canvas").first
    canvas.wait_for()
    wait_until(lambda: canvas.evaluate(COLOURED) > 50, "something is drawn", 20)


def test_view_comes_back_by_its_address(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP[:4], view="scatter"))
    page.get_by_text("Charts", exact=True).click()
    page.wait_for_url(lambda url: "view=" not in url)
    page.reload()
    wait_for_curve(chart(page, "loss"))
    page.goto(f"{server.url}{comparing(SWEEP[:4], view='scatter')}")
    expect(page.locator(".view svg circle")).to_have_count(4)


def test_runs_that_are_not_there_are_said(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(["no/such", "run"]))
    expect(page.locator("main")).to_contain_text("None of these runs is here")
