"""Chooses which tests run: `system` and `slow` ones where they are asked for, and a sample of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

MARKERS = ("system", "slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="of each file, run the first of the tests that are left and every N-th after it",
    )


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail the collection of what holds a test with both markers: `-m system` and `-m slow` would both run it."""
    report = yield
    both = [
        item.nodeid
        for item in report.result
        if isinstance(item, pytest.Item) and all(map(item.get_closest_marker, MARKERS))
    ]
    if both:
        report.outcome = "failed"
        report.longrepr = (
            f"{both[0]} is marked both `system` and `slow`; a test is one of the two or neither. "
            "Where only some parameters are slow, mark each parameter: pytest.param(..., marks=...)."
        )
    return report


@pytest.hookimpl(trylast=True)  # after `-m`, `-k` and `--last-failed`
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what is asked for: all that `-m` leaves; without it the default set, and the system tests of files that are named."""
    kept = items if config.option.markexpr else _by_default(items, _files_named(config))
    kept = _sample(kept, config.option.one_in)
    chosen = set(kept)
    if out := [item for item in items if item not in chosen]:
        config.hook.pytest_deselected(items=out)
        items[:] = kept


def _by_default(items: Sequence[pytest.Item], named: set[Path]) -> list[pytest.Item]:
    return [
        item
        for item in items
        if not item.get_closest_marker("slow") and (item.path in named or not item.get_closest_marker("system"))
    ]


def _files_named(config: pytest.Config) -> set[Path]:
    """The files among the command line's arguments, of test ids too."""
    paths = (config.invocation_params.dir / argument.partition("::")[0] for argument in config.args)
    return {Path(os.path.abspath(path)) for path in paths if path.is_file()}


def _sample(items: Sequence[pytest.Item], one_in: int) -> list[pytest.Item]:
    by_file = defaultdict(list)
    for item in items:
        by_file[item.path].append(item)
    return [item for of_file in by_file.values() for item in of_file[::one_in]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Say where the tests may be, if none ran."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not config.option.markexpr:
        terminalreporter.write_line(
            "Without -m nothing that is marked `slow` runs, and `system` of named files only: see tests/README.md."
        )
