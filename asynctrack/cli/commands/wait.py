"""`asynctrack wait`: waits until a record meets a condition, or until the run ends."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from asynctrack.cli import TIMED_OUT, options
from asynctrack.cli.follow import Follower
from asynctrack.cli.lines import as_document, print_line
from asynctrack.cli.output import Output, print_json, warn
from asynctrack.cli.records import batch_decoder, records_in
from asynctrack.client.run_state import State
from asynctrack.collection.record_subject import RunAtRecord
from asynctrack.records.codec import Record
from asynctrack.records.expressions import Condition


class Outcome(NamedTuple):
    """The end of the waiting.

    Attributes:
        fulfilled: True if the condition was met or, without one, if the run finished; None where the time was over.
        status: of the run.
        record: the record that met the condition.
    """

    fulfilled: bool | None
    status: State
    record: Record | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_run(parser)
    parser.add_argument(
        "--until",
        metavar="CONDITION",
        help="for example 'loss < 0.1', 'max(val/acc) >= 0.9 and step > 1000' or 'status in (finished, failed)'; records that were "
        "logged before count. Without --until: wait for the end of the run, and exit with 0 if it finished",
    )
    parser.add_argument(
        "--timeout-s", type=options.seconds, metavar="S", help="wait at most S seconds, then exit with 124"
    )
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Wait. Return 0 if the condition was met, or the run finished."""
    condition = None if args.until is None else Condition(args.until, of_records=True)
    run = options.find(args)
    deadline = float("inf") if args.timeout_s is None else time.monotonic() + args.timeout_s
    outcome = _wait_for_end(run, deadline) if condition is None else _wait_for(run, condition, deadline)
    if args.json:
        record = None if outcome.record is None else as_document(outcome.record)
        print_json({
            "path": str(run), "until": args.until, "fulfilled": bool(outcome.fulfilled),
            "timed_out": outcome.fulfilled is None, "status": outcome.status, "record": record,
        })  # fmt: skip
    else:
        _print(outcome, run, args.until)
    if condition is not None and not outcome.fulfilled and (missing := condition.what_is_missing("no record")):
        warn(missing)
    return TIMED_OUT if outcome.fulfilled is None else 0 if outcome.fulfilled else 1


def _wait_for_end(run: Path, deadline: float) -> Outcome:
    with closing(Follower.at_end(run)) as follower:
        for batch in follower.batches():
            if batch is None and follower.status == "running" and time.monotonic() >= deadline:
                return Outcome(None, follower.status)
    return Outcome(follower.status == "finished", follower.status)


def _wait_for(run: Path, condition: Condition, deadline: float) -> Outcome:
    subject = RunAtRecord(run, condition.folded)
    told = False
    decoder = batch_decoder()
    caught_up = False  # existing records are read however short the time is
    with closing(Follower(run)) as follower:
        for batch in follower.batches():
            if batch is None:
                if not told and follower.status == "running" and (missing := condition.what_is_missing("no record")):
                    told = True
                    warn(f"still waiting, but so far {missing}")
                caught_up = True
                if _holds_now(condition, subject, follower.status):
                    return Outcome(True, follower.status, subject.record)
            else:
                subject.status = "running"
                for record in records_in(batch, decoder=decoder):
                    subject.take(record)
                    if condition.holds(subject):
                        return Outcome(True, follower.status, record)
            if caught_up and follower.status == "running" and time.monotonic() >= deadline:
                return Outcome(None, follower.status)
    fulfilled = _holds_now(condition, subject, follower.status)
    return Outcome(fulfilled, follower.status, subject.record if fulfilled else None)


def _holds_now(condition: Condition, subject: RunAtRecord, status: State) -> bool:
    """Return True if the condition has come to hold without another record."""
    subject.status = status
    return condition.changes_with_time and condition.holds(subject)


def _print(outcome: Outcome, run: Path, until: str | None) -> None:
    if outcome.record is not None:
        print_line(Output(), outcome.record)
    elif outcome.fulfilled is None:
        warn(f"timed out: {run} still runs" + (f", and no record has met {until!r}" if until else ""))
    elif outcome.status == "lost":
        warn(f"the process and the worker of {run} have died; `asynctrack sync` recovers what they left")
    elif outcome.fulfilled or until is None:
        Output().line(outcome.status)
    else:
        warn(f"{run} has ended ({outcome.status}), and no record met {until!r}")
