"""Runs, names, numbers and addresses that nobody has shown the page before: it says what there is, and has no error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asynctrack
from page.conftest import Server, Visitor, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.system

OF_OBJECTS = ("__proto__", "constructor", "toString")


def log(directory: Path, run_id: str, records: Sequence[tuple[int, Mapping[str, Any]]], **settings: Any) -> None:
    with asynctrack.init("odd", id=run_id, dir=directory, backends=[], **settings) as run:
        for step, record in records:
            run.log(record, step=step)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("odd")
    for at in range(2):
        config = dict.fromkeys(OF_OBJECTS[: at + 2], at)
        records = [(step, dict.fromkeys(OF_OBJECTS[: at + 2], step + at)) for step in range(9)]
        log(directory, f"objects-{at}", records, config=config)
    log(directory, "close", [(2**62 + 1024 * at, {"far": 1e16 + 2 * (at % 2), "v": at}) for at in range(3)])
    log(directory, "infinite", [(step, {"up": math.inf, "v": step}) for step in range(9)])
    log(directory, "lines", [(step, {"one\nmetric": step, "v": step}) for step in range(9)])
    log(directory, "long", [(0, {"v": 1})], name="n" * 10_000, notes="x" * 5000)
    log(directory, "broken", [(0, {"v": 1})])
    for at in range(2):
        names = [*(f"layer/{number}" for number in range(600)), "l" * 400]
        log(directory, f"many-{at}", [(step, dict.fromkeys(names, step + at)) for step in range(3)])
    next((directory / "odd" / "broken" / "journal").iterdir()).write_bytes(b"")
    with serving(directory) as server:
        yield server


def drawn(page: Page, name: str) -> int:
    """How many pixels of a chart have a curve's colour."""
    chart = page.get_by_role("article", name=name, exact=True)
    chart.locator("canvas").first.wait_for()
    return int(
        chart.evaluate("""async (chart) => {
            const canvas = chart.querySelector("canvas");
            for (let tries = 0; tries < 100; tries++) {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let count = 0;
                for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 128 && Math.abs(data[at] - data[at + 2]) > 60) count++;
                if (count) return count;
                await new Promise((done) => setTimeout(done, 50));
            }
            return 0;
        }""")
    )


@pytest.mark.parametrize("axis", OF_OBJECTS)
def test_metric_can_have_the_name_of_what_every_object_has(visitor: Visitor, odd: Server, axis: str) -> None:
    page = visitor.open(odd, f"#/run/odd/objects-1?x={axis}")
    for name in OF_OBJECTS:
        assert drawn(page, name) > 0


@pytest.mark.parametrize("place", ["constructor/", "__proto__", "constructor"])
def test_address_with_the_name_of_what_every_object_has_is_no_page(visitor: Visitor, odd: Server, place: str) -> None:
    visitor.open(odd, f"#/{place}").get_by_text("There is no such page").wait_for()


def test_unknown_part_of_a_run_gives_way_to_its_charts(visitor: Visitor, odd: Server) -> None:
    page = visitor.open(odd, "#/run/odd/objects-0?tab=constructor")
    assert page.get_by_role("tab", selected=True).inner_text().startswith("Charts")


def test_only_a_goal_makes_a_value_the_best(visitor: Visitor, odd: Server) -> None:
    page = visitor.open(odd, "#/compare/?run=odd/objects-0&run=odd/objects-1&view=differences")
    page.get_by_role("heading", name="Last values").wait_for()
    assert page.locator("[data-best]").count() == 0


def test_numbers_that_are_next_to_each_other_have_axes(visitor: Visitor, odd: Server) -> None:
    page = visitor.open(odd, "#/run/odd/close")
    assert drawn(page, "v") > 0 and drawn(page, "far") > 0


def test_zoom_that_a_logarithmic_axis_cannot_have_begins_where_it_does(visitor: Visitor, odd: Server) -> None:
    assert drawn(visitor.open(odd, "#/run/odd/infinite?log=x&zoom=-5,6"), "v") > 0


def test_infinity_is_not_said_to_be_nan(visitor: Visitor, odd: Server) -> None:
    legend = visitor.open(odd, "#/run/odd/infinite").get_by_role("button", name="up not finite")
    legend.wait_for()


def test_name_of_a_metric_may_have_lines(visitor: Visitor, odd: Server) -> None:
    page = visitor.open(odd, "#/compare/?run=odd/lines&run=odd/infinite")
    assert drawn(page, "one metric") > 0


@pytest.mark.parametrize("name", ["layer/599", "l" * 400])
def test_every_metric_of_compared_runs_has_a_chart(visitor: Visitor, odd: Server, name: str) -> None:
    page = visitor.open(odd, f"#/compare/?run=odd/many-0&run=odd/many-1&q={name}")
    assert drawn(page, name.removeprefix("layer/")) > 0


@pytest.mark.parametrize("width", [1400, 400])
def test_long_texts_do_not_make_the_page_wider(visitor: Visitor, odd: Server, width: int) -> None:
    visitor.page.set_viewport_size({"width": width, "height": 900})
    page = visitor.open(odd, "#/run/odd/long")
    assert drawn(page, "v") > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_run_of_which_nothing_can_be_read_says_why(visitor: Visitor, odd: Server) -> None:
    page = visitor.open(odd, "#/run/odd/broken")
    page.get_by_text("No numbers can be read").wait_for()
    assert "it ends here, before the run does" in page.locator("details.trouble[open]").inner_text()


@pytest.mark.parametrize("how", ["", "?poll=1"])
def test_page_goes_on_when_the_server_behind_a_proxy_is_there_again(visitor: Visitor, odd: Server, how: str) -> None:
    visitor.page.route("**/api/events?*", lambda route: route.fulfill(status=502, body="the server is away"))
    page = visitor.open(odd, f"#/{how}")
    page.get_by_text("The server does not answer").wait_for()
    page.unroute("**/api/events?*")
    page.locator(".banner").wait_for(state="hidden")
    visitor.problems[:] = [problem for problem in visitor.problems if "502" not in problem]


@pytest.mark.parametrize("how", ["", "?poll=1"])
def test_page_of_another_token_says_so(visitor: Visitor, odd: Server, how: str) -> None:
    visitor.page.route("**/api/**", lambda route: route.fulfill(status=403, json={"error": "expected the token"}))
    visitor.open(odd, f"#/{how}").get_by_text("The server does not know this page").wait_for()
    visitor.page.goto("about:blank")  # nothing is asked for any more
    visitor.problems[:] = [problem for problem in visitor.problems if "403" not in problem]


def test_chart_fills_the_screen_though_there_are_few(visitor: Visitor, odd: Server) -> None:
    page = visitor.open(odd, "#/run/odd/infinite?full=v")
    assert drawn(page, "v") > 0
    box = page.get_by_role("article", name="v", exact=True).bounding_box()
    assert box is not None and box["y"] + box["height"] >= 895


def test_menu_of_a_chart_is_used_by_keys_alone(visitor: Visitor, odd: Server) -> None:
    page = visitor.open(odd, "#/run/odd/infinite?full=v")
    assert drawn(page, "v") > 0
    page.keyboard.press("e")
    page.get_by_role("button", name="Save as SVG").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "x axis of this chart"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Save as SVG").wait_for(state="hidden")
    assert "full=v" in page.evaluate("location.hash")
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "full" not in url)


@pytest.mark.parametrize("place", ["/", "/run/odd/infinite"])
def test_filter_is_left_by_enter_and_stays(visitor: Visitor, odd: Server, place: str) -> None:
    page = visitor.open(odd, f"#{place}")
    page.get_by_role("searchbox").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("v")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement === document.body")
    page.wait_for_url(lambda url: "q=v" in url)
