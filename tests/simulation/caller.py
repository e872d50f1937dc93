"""The process that logs: one session of a run, as its order says. `python -m simulation.caller ORDER`, told to end by a line on standard input.

It opens its run, also if it has to try for a while, logs in threads, forks, and asks for flushes and statistics meanwhile. What it did is in its
report, a JSON file; that is missing when it was killed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

import asynctrack
from asynctrack.errors import AsynctrackError
from simulation.backends import Flapping, FlappingInCaller, FlappingInProcess
from simulation.ledger import Ledger
from simulation.plan import RunSession

# Between two tries to open the run.
_AGAIN_S = 0.1


def main(order: Path) -> int:
    faulthandler.register(signal.SIGUSR1)
    session = msgspec.json.decode(order.read_bytes(), type=RunSession)
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    report: dict[str, Any] = {"refused": [], "waits": []}
    run = _open(session, told, report)
    if run is not None:
        _sit(run, session, told, report)
    draft = Path(session.report).with_suffix(".new")
    draft.write_text(json.dumps(report))
    draft.rename(session.report)
    return 0


def _open(session: RunSession, told: threading.Event, report: dict[str, Any]) -> Any:
    """The run; None where it cannot be opened until we are told to end."""
    while True:
        begin = time.monotonic()
        try:
            run = asynctrack.init(
                "p",
                id=session.run,
                dir=session.dir,
                backends=[_backend(name, session) for name in session.backends],
                resume="allow",
                worker=session.worker,
                when_full=session.when_full,
                max_block_s=0.2,
                queue_bytes=session.queue_bytes,
                finish_timeout_s=session.finish_timeout_s,
                after_exit_max_s=session.after_exit_max_s,
            )
            report["opened_s"] = time.monotonic() - begin
            return run
        except (AsynctrackError, OSError) as error:  # which of them may be is the oracle's affair
            report["refused"].append(f"{type(error).__name__}: {error}")
            if report["refused"][-1:] != report["refused"][-2:-1]:
                print(report["refused"][-1], file=sys.stderr, flush=True)
            if told.wait(_AGAIN_S):
                return None


def _backend(name: str, session: RunSession) -> Any:
    own = {"own-worker": Flapping, "own-process": FlappingInProcess, "own-caller": FlappingInCaller}
    if name in own:
        weather, file = (str(Path(folder, f"{session.run}.{name}")) for folder in (session.weather, session.taken))
        return own[name](weather=weather, file=file, stall_timeout_s=1.0)
    return asynctrack.SQL(url=f"sqlite:///{session.database}") if name == "sql" else name


def _sit(run: Any, session: RunSession, told: threading.Event, report: dict[str, Any]) -> None:
    stop = threading.Event()
    names = [f"{session.name}-t{number}" for number in range(session.threads)]
    ledgers = [Ledger(Path(session.ledgers), name) for name in names]
    threads = [threading.Thread(target=_write, args=(run, session, ledger, stop), daemon=True) for ledger in ledgers]
    for thread in threads:
        thread.start()
    children = [
        pid for number, what in enumerate(session.asides) if (pid := _aside(run, session, number, what, told, report))
    ]
    told.wait()
    if not session.late:  # else threads log while the run ends
        stop.set()
        for thread in threads:
            thread.join()
    report["finish_s"], report["stats"] = _timed(lambda: _finish(run, session.ends))
    stop.set()
    for thread in threads:
        thread.join()
    for pid in children:
        os.waitpid(pid, 0)


def _write(run: Any, session: RunSession, ledger: Ledger, stop: threading.Event) -> None:
    """A writer: bursts, and pauses between them."""
    chance = random.Random(f"{session.seed} {ledger.who}")
    while not stop.is_set() and ledger.accepted < session.most:
        for _ in range(chance.randint(1, session.burst)):
            if stop.is_set() or not ledger.log(
                run.log, data_of(ledger.who, ledger.accepted, session.pad), _step(session, ledger)
            ):
                break
        time.sleep(chance.random() * session.pause_s)
    ledger.end()


def data_of(who: str, n: int, pad: int) -> dict[str, Any]:
    """The n-th record of a writer."""
    data: dict[str, Any] = {f"{who}/n": n, f"{who}/half": n / 2}
    if pad:
        data[f"{who}/pad"] = "x" * (n % pad)
    return data


def _step(session: RunSession, ledger: Ledger) -> int | None:
    return ledger.accepted if session.steps else None


def _aside(
    run: Any, session: RunSession, number: int, what: str, told: threading.Event, report: dict[str, Any]
) -> int | None:
    """What the main thread does while the others log; returns the pid of a child that it forked."""
    if told.wait(session.aside_every_s):
        return None
    if what.startswith("fork"):
        return _fork(run, session, f"{session.name}-f{number}", what)
    if what == "stats":
        report["waits"].append([what, 0.0, _timed(run.stats)[0]])
    else:
        report["waits"].append([what, 0.3, _timed(lambda: run.flush(what, timeout_s=0.3))[0]])
    return None


def _fork(run: Any, session: RunSession, who: str, what: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        ledger = Ledger(Path(session.ledgers), who)
        for _ in range(session.burst * 2):
            if not ledger.log(run.log, data_of(who, ledger.accepted, session.pad), _step(session, ledger)):
                break
        if what == "fork, which kills itself":
            os.kill(os.getpid(), signal.SIGKILL)
        ledger.end()
    finally:
        os._exit(0)


def _finish(run: Any, ends: str) -> Any:
    if ends == "finish":
        return msgspec.to_builtins(run.finish())
    try:
        with run:
            if ends == "raise":
                raise ArithmeticError("diverged")
    except ArithmeticError:
        pass
    return msgspec.to_builtins(run.finish())


def _timed(work: Any) -> tuple[float, Any]:
    begin = time.monotonic()
    result = work()
    return time.monotonic() - begin, result


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
