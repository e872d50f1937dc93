"""The standard library's logging: what is logged is in the run, whatever is logged and however the process ends."""

from __future__ import annotations

import logging
import logging.config
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ended, manifest, outcome, records, run_child, start, wait_until

import asynctrack
from asynctrack.integrations.logging import AsyncHandler
from integrations import examples

pytestmark = pytest.mark.usefixtures("shared_host")


@pytest.fixture
def handler(runs: Path) -> Iterator[AsyncHandler]:
    handler = AsyncHandler("app", dir=runs)
    yield handler
    handler.close()


@pytest.fixture
def logger(handler: AsyncHandler) -> Iterator[logging.Logger]:
    logger = logging.getLogger("app.part")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def logged(handler: AsyncHandler) -> list[dict[str, Any]]:
    handler.close()
    return [record.data for record in records(handler.run.path)]


def test_a_message_is_a_record(handler: AsyncHandler, logger: logging.Logger) -> None:
    logger.info("%s of %d", "first", 2, extra={"lr": 0.5, "shape": (2, 3)})
    (record,) = logged(handler)
    assert (record["message"], record["level"], record["logger"]) == ("first of 2", "INFO", "app.part")
    assert (record["lr"], record["shape"], record["thread"]) == (0.5, [2, 3], "MainThread")
    assert record["file"] == __file__
    assert record["line"] > 0
    assert manifest(handler.run.path)["status"] == "finished"


def test_an_exception_has_its_traceback(handler: AsyncHandler, logger: logging.Logger) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("it failed")
    logger.error("no exception is passing", exc_info=True)
    first, second = logged(handler)
    assert first["message"] == "it failed"
    assert first["exception"].startswith("Traceback") and first["exception"].endswith("ValueError: boom")
    assert "exception" not in second


def test_a_formatter_is_not_asked(handler: AsyncHandler, logger: logging.Logger) -> None:
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.warning("careful")
    assert logged(handler)[0]["message"] == "careful"


def test_levels_and_filters_hold(handler: AsyncHandler, logger: logging.Logger) -> None:
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    for message in ("secret", "public"):
        logger.warning(message)
        logger.info(message)
    assert [record["message"] for record in logged(handler)] == ["public"]


def test_what_asynctrack_says_is_left_out(handler: AsyncHandler) -> None:
    for name in ("asynctrack", "asynctrack.delivery", "asynctracker"):
        handler.handle(logging.makeLogRecord({"name": name, "msg": "x"}))
    assert [record["logger"] for record in logged(handler)] == ["asynctracker"]


def test_a_message_that_cannot_be_made_stops_nobody(handler: AsyncHandler, capsys: pytest.CaptureFixture[str]) -> None:
    handler.handle(
        logging.makeLogRecord({"msg": "%d", "args": ("no number",)})
    )  # a logger has pytest's handler, which raises it
    handler.handle(logging.makeLogRecord({"msg": "fine"}))
    assert [record["message"] for record in logged(handler)] == ["fine"]
    assert "Logging error" in capsys.readouterr().err


def test_a_message_after_the_end_stops_nobody(
    handler: AsyncHandler, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler.close()
    logger.info("too late")
    assert "RunFinished" in capsys.readouterr().err


def test_a_run_that_was_given_stays_open(runs: Path) -> None:
    with asynctrack.init("app", dir=runs) as run:
        handler = AsyncHandler(run, "INFO")
        handler.handle(logging.makeLogRecord({"msg": "first", "levelname": "INFO"}))
        handler.close()
        run.log({"loss": 0.5})
    assert [record.data.get("message") for record in records(run.path)] == ["first", None]


def test_a_flush_waits_for_the_journal(handler: AsyncHandler, logger: logging.Logger) -> None:
    logger.info("here")
    handler.flush()
    assert len(records(handler.run.path)) == 1


@pytest.mark.system
def test_it_is_configured_by_a_dict(runs: Path) -> None:
    script = """
import logging.config, sys
handler = {"class": "asynctrack.integrations.logging.AsyncHandler", "run": "app", "level": "INFO", "dir": sys.argv[1]}
logging.config.dictConfig({"version": 1, "handlers": {"track": handler}, "root": {"handlers": ["track"], "level": "DEBUG"}})
logging.info("hello")
logging.debug("not this")
"""
    run_child(script, runs)
    (run,) = (runs / "app").iterdir()
    assert [record.data["message"] for record in records(run)] == ["hello"]
    assert manifest(run)["status"] == "finished"


@pytest.mark.system
def test_a_killed_process_keeps_its_messages(runs: Path) -> None:
    script = """
import logging, os, signal, sys
from asynctrack.integrations.logging import AsyncHandler
logging.basicConfig(level=logging.INFO, handlers=[AsyncHandler("app", dir=sys.argv[1])])
for number in range(1000):
    logging.info("message %d", number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    child = start(script, runs)
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    (run,) = (runs / "app").iterdir()
    wait_until(lambda: ended(run), "the worker has noted the end")
    assert [record.data["message"] for record in records(run)] == [f"message {number}" for number in range(1000)]


def test_the_example_runs(tmp_path: Path) -> None:
    printed = examples.run("logging_handler", cwd=tmp_path)
    (run,) = (tmp_path / "asynctrack_runs" / "shop").iterdir()
    assert printed == f"{run} has the run\n"
    found = [record.data for record in asynctrack.open_run(run).records()]
    assert [record["message"] for record in found] == ["sold 3 items", "sold 5 items", "an order without items", "sold 2 items"]  # fmt: skip
    assert found[0]["each"] == 10.0
    assert "ZeroDivisionError" in found[2]["exception"]


def test_messages_of_all_ranks_are_in_one_run_with_join(runs: Path) -> None:
    script = """
import logging, os, sys
from asynctrack.integrations.logging import AsyncHandler
logging.getLogger().addHandler(AsyncHandler("app", dir=sys.argv[1], id="one", join=True))
logging.warning("here is %s", os.environ["RANK"])
print("0", flush=True)
sys.stdin.readline()
"""
    children = [start(script, runs, RANK=str(rank)) for rank in range(2)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "0\n"
    for child in children:
        outcome(child)
    found = [(record.writer, record.data["message"]) for record in records(runs / "app" / "one")]
    assert sorted(found) == [("rank0", "here is 0"), ("rank1", "here is 1")]
