"""What is chosen on the page: columns, curves and rows of the table, and runs that stand out or are brushed when they are compared."""

from __future__ import annotations

import re
from typing import Any

import pytest

from page.conftest import Server, Visitor
from page.test_compare_page import SWEEP, comparing
from page.test_run_page import chart, wait_for_curve
from page.test_runs_page import rows

expect = pytest.importorskip("playwright.sync_api", reason="playwright is in the group test-page").expect
pytestmark = pytest.mark.system

# How often the lines of the legend change within 30 frames.
CHANGES = """async () => {
  let changes = 0;
  const seen = new MutationObserver((found) => (changes += found.length));
  seen.observe(document.querySelector(".run-legend"), { subtree: true, attributes: true });
  for (let frame = 0; frame < 30; frame++) await new Promise(requestAnimationFrame);
  return changes;
}"""


def heads(page: Any) -> list[str]:
    return [
        title.removesuffix(": sort")
        for title in page.locator("thead button.title").evaluate_all("all => all.map((one) => one.title)")
    ]


def test_curves_follow_the_metric_that_is_chosen(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/?q=spike")
    expect(page.locator("canvas.sparkline")).to_have_attribute("aria-label", re.compile("^loss from"))
    page.get_by_label("Curve").select_option("grad")
    expect(page.locator("canvas.sparkline")).to_have_attribute("aria-label", re.compile("^grad from"))


def test_columns_are_hidden_shown_and_kept_at_the_left(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/?q=run-")
    expect(rows(page)).to_have_count(12)
    page.get_by_role("button", name="Columns").click()
    page.get_by_label("step", exact=True).uncheck()
    page.get_by_label("epochs", exact=True).check()
    page.get_by_role("button", name="Keep lr at the left").click()
    page.get_by_role("button", name="Close").click()
    assert "step" not in heads(page) and "config/epochs" in heads(page)
    assert heads(page)[:2] == ["name", "config/lr"]
    page.reload()
    expect(rows(page)).to_have_count(12)
    assert heads(page)[:2] == ["name", "config/lr"] and "config/epochs" in heads(page)


def test_wrong_expression_says_where_it_is_wrong_and_leaves_the_table(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/?q=lr+%3C+%3C+1")
    expect(page.locator("#filter-error")).to_contain_text("character 6")
    expect(page.locator("#filter-error mark")).to_have_text("<")
    expect(rows(page).first).to_be_visible()
    assert visitor.problems and all("400" in problem for problem in visitor.problems)
    visitor.problems.clear()


def test_name_that_no_run_has_is_said(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, "#/?q=layerz+%3E+1")
    expect(page.locator("#filter-error")).to_contain_text("did you mean `layers`")


def test_only_rows_in_view_are_there(visitor: Visitor, server: Server) -> None:
    visitor.page.set_viewport_size({"width": 1000, "height": 240})
    page = visitor.open(server, "#/?sort=name")
    expect(rows(page).first).to_have_attribute("aria-rowindex", "2")
    count = int(page.locator("table.runs").get_attribute("aria-rowcount") or 0)
    assert rows(page).count() < count - 1
    page.locator(".scroller").evaluate("box => box.scrollTop = box.scrollHeight")
    expect(page.locator(f"tr[aria-rowindex='{count}']")).to_be_visible()


def test_run_under_the_mouse_stands_out_in_all_charts_and_in_the_list(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP[:4]))
    wait_for_curve(chart(page, "loss"))
    chart(page, "loss").locator(".u-over").hover(position={"x": 150, "y": 60})
    expect(page.locator(".run-legend li.above")).to_have_count(1)
    expect(chart(page, "train/acc").locator("canvas.above")).to_have_count(1)
    assert page.evaluate(CHANGES) == 0
    page.locator("header.top").hover()
    expect(page.locator(".run-legend li.above")).to_have_count(0)


def test_brush_on_an_axis_chooses_runs(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP, view="parallel"))
    expect(page.locator(".view")).to_contain_text("12 of 12 runs")
    box = page.locator(".parallel canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 56, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 56, box["y"] + 70)
    page.mouse.up()
    expect(page.locator(".view")).to_contain_text("3 of 12 runs")
    page.wait_for_url(re.compile("brush="))
    page.get_by_role("button", name="Compare only these").click()
    page.wait_for_url(lambda url: url.count("run=") == 3)


def test_runs_that_are_not_drawn_can_be(visitor: Visitor, server: Server) -> None:
    page = visitor.open(server, comparing(SWEEP, shown="2"))
    expect(page.locator(".run-legend")).to_contain_text("2 shown")
    page.get_by_role("button", name="all", exact=True).click()
    expect(page.locator(".run-legend input:checked")).to_have_count(12)
    page.get_by_label("Show run-05").uncheck()
    expect(page.locator(".run-legend")).to_contain_text("11 shown")
    page.wait_for_url(re.compile("flip=sweep/run-05"))
