"""`asynctrack workers`: lists the background workers of this user on this machine and the processes that they serve, and ends them."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system import locks
from asynctrack._system.locks import in_words
from asynctrack.cli import options, output
from asynctrack.cli.output import Output, Styled, TableColumn
from asynctrack.errors import InvalidSettings
from asynctrack.queue.shm_paths import LOCK_NAME
from asynctrack.reading import catalog
from asynctrack.worker.listing import Worker, list_workers

# A worker that gets SIGTERM saves its cursors and ends; its sinks get four seconds.
_LEAVE_WAIT_S: Final = 8.0
_POLL_S: Final = 0.05
_ALL: Final = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument(
        "--end",
        nargs="+",
        metavar="PID",
        help="end these workers, or 'all': each when the processes that it serves have ended; `asynctrack sync` delivers what is left then",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --end: end them at once; nothing is lost, and a process that still logs starts another",
    )
    options.add_json(parser, "print the workers as one JSON list")


def main(args: argparse.Namespace) -> int:
    """Show or end workers. Return 1 if one that should have ended has not."""
    if args.force and args.end is None:
        raise InvalidSettings(["--force needs --end: asynctrack workers --end PID --force"])
    workers = list_workers()
    if args.end is not None:
        return _end(workers, args)
    if args.json:
        output.print_json([_as_document(worker) for worker in workers])
    else:
        _print(workers)
    return 0


def _as_document(worker: Worker) -> dict[str, Any]:
    return {**msgspec.to_builtins(worker), "callers": worker.callers, "runs": worker.runs}


def _print(workers: Sequence[Worker]) -> None:
    out = Output()
    if not workers:
        out.line("no worker runs, and no queue is left")
        return
    columns = [
        TableColumn("worker", right=True),
        TableColumn("doing"),
        TableColumn("callers"),
        TableColumn("queued", right=True),
        TableColumn("polled", right=True, rank=1),
        TableColumn("runs", cut=True),
    ]
    out.table(columns, [_row(worker) for worker in workers])
    if any(worker.pid is None and worker.queues and not worker.callers for worker in workers):
        out.line()
        out.line(Styled("orphans: `asynctrack sync` recovers what they hold", "dim"))


def _row(worker: Worker) -> list[output.Piece]:
    looked = min((queue.looked_at_s for queue in worker.queues if queue.looked_at_s is not None), default=None)
    return [
        "-" if worker.pid is None else in_words([worker.pid]),
        _doing(worker),
        in_words(worker.callers) or "-",
        output.size(sum(queue.used for queue in worker.queues)),
        "-" if looked is None else f"{output.duration(round(looked, 1))} ago",
        ", ".join(catalog.name_of(Path(run)) for run in worker.runs) or "-",
    ]


def _doing(worker: Worker) -> Styled:
    trouble = next((queue.trouble for queue in worker.queues if queue.trouble), None)
    if trouble is not None:
        return Styled(f"cannot write: {trouble}", "bold red")
    if worker.pid is None:
        return Styled("being started", "yellow") if worker.callers else Styled("orphans", "bold red")
    if not worker.queues:
        return Styled("idle", "dim")
    return Styled("serving", "green") if worker.callers else Styled("delivering the rest", "yellow")


def _end(workers: Sequence[Worker], args: argparse.Namespace) -> int:
    pids = {str(worker.pid): worker for worker in workers if worker.pid}
    wanted = list(pids) if _ALL in args.end else args.end
    elsewhere = any(worker.pid == locks.ELSEWHERE for worker in workers)
    there = "; those in other containers can be ended there" if elsewhere else ""
    if unknown := [pid for pid in wanted if pid not in pids]:
        output.warn(f"{_no_worker(unknown)}; {_which_there_are(pids)}{there}")
        return 2
    if there and _ALL in args.end:
        output.warn(there[2:])
    for pid in wanted:
        lock = os.path.join(pids[pid].directory, LOCK_NAME)
        locks.signal_holder(lock, signal.SIGKILL if args.force else signal.SIGTERM, int(pid))
    waited_for = {pid for pid in wanted if args.force or not pids[pid].callers}
    ended = _await_ends(waited_for)
    if args.json:
        output.print_json(
            {
                pid: "ended" if pid in ended else "will end" if pid not in waited_for else "still running"
                for pid in wanted
            }
        )
    else:
        for pid in wanted:
            print(_outcome_line(pid, pids[pid], ended=pid in ended, waited_for=pid in waited_for))
    return 0 if ended == waited_for else 1


def _no_worker(unknown: Sequence[str]) -> str:
    """Say what is wrong with the words that `--end` was given: some are no numbers of processes, or no worker has them."""
    if words := [word for word in unknown if not word.isdecimal()]:
        return f"--end expects the pids of workers, or 'all'; got {', '.join(map(repr, words))}"
    return f"no worker has the pid {', '.join(unknown)}"


def _which_there_are(pids: Collection[str]) -> str:
    if not pids:
        return "no worker of yours runs"
    return (
        f"the only worker has the pid {next(iter(pids))}"
        if len(pids) == 1
        else f"the workers have the pids {', '.join(pids)}"
    )


def _outcome_line(pid: str, worker: Worker, *, ended: bool, waited_for: bool) -> str:
    if ended:
        return f"worker {pid} has ended"
    if not waited_for:
        return f"worker {pid} ends after its callers ({in_words(worker.callers)}); --force ends it at once, and they start another"
    return f"worker {pid} still runs after {_LEAVE_WAIT_S:.0f} s; --force kills it, and nothing is lost"


def _await_ends(pids: set[str]) -> set[str]:
    deadline = time.monotonic() + _LEAVE_WAIT_S
    while (there := {str(worker.pid) for worker in list_workers()} & pids) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return pids - there
