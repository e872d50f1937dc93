"""The peers: how each is opened, logged to, ended, and how many records are found of what it had. Runs in a process of the peer's own.

Nothing of a peer is imported before it is opened.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

Data = dict[str, Any]


class Opened(NamedTuple):
    """A peer that is ready.

    Attributes:
        log: takes a record, and its step.
        finish: returns when the peer says that all is done.
    """

    log: Callable[[Data, int], object]
    finish: Callable[[], object]


class Peer(NamedTuple):
    """A way to track.

    Attributes:
        name: in the tables.
        open: in a directory of its own.
        count: records found in it by another process; None where nothing is kept, or its format has no reader here.
        packages: distributions whose versions the result names.
        note: what is not comparable.
        most: records of a tight loop.
    """

    name: str
    open: Callable[[Path], Opened]
    count: Callable[[Path], int] | None = None
    packages: tuple[str, ...] = ()
    note: str = ""
    most: int = 100_000


def _nothing(_: Path) -> Opened:
    return Opened(lambda data, step: None, lambda: None)


def _deque(_: Path) -> Opened:
    from collections import deque

    kept: deque[Data] = deque()
    return Opened(lambda data, step: kept.append(data), lambda: None)


def _encode(_: Path) -> Opened:
    import msgspec

    encode = msgspec.msgpack.Encoder().encode
    return Opened(lambda data, step: encode((step, data)), lambda: None)


def _encode_and_write(directory: Path) -> Opened:
    import msgspec

    encode = msgspec.json.Encoder().encode
    fd = os.open(directory / "log.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    return Opened(lambda data, step: os.write(fd, encode({"step": step, **data}) + b"\n"), lambda: os.close(fd))


def _json_and_flush(directory: Path) -> Opened:
    file = open(directory / "log.jsonl", "w")  # noqa: SIM115  # until `finish`

    def log(data: Data, step: int) -> None:
        file.write(json.dumps({"step": step, **data}) + "\n")
        file.flush()

    return Opened(log, file.close)


def _logging_queue(directory: Path) -> Opened:
    import logging
    import logging.handlers
    import queue

    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = logging.FileHandler(directory / "log.jsonl")
    handler.setFormatter(logging.Formatter("%(message)s"))
    listener = logging.handlers.QueueListener(records, handler)
    logger = logging.getLogger("peer")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()

    def finish() -> None:
        listener.stop()
        handler.close()

    return Opened(lambda data, step: logger.info(json.dumps({"step": step, **data})), finish)


def _loguru(directory: Path) -> Opened:
    from loguru import logger

    logger.remove()
    logger.add(directory / "log.jsonl", enqueue=True, format="{message}")

    def finish() -> None:
        logger.complete()
        logger.remove()

    return Opened(lambda data, step: logger.info(json.dumps({"step": step, **data})), finish)


def _asynctrack(directory: Path) -> Opened:
    import asynctrack

    run = asynctrack.init("bench", dir=directory)
    return Opened(lambda data, step: run.log(data, step), run.finish)


def _wandb(mode: str) -> Callable[[Path], Opened]:
    def open_(directory: Path) -> Opened:
        os.environ["WANDB_SILENT"] = "true"
        import wandb

        run = wandb.init(project="bench", dir=directory, mode=mode, config={"lr": 1e-3})
        return Opened(lambda data, step: run.log(data, step=step), run.finish)

    return open_


def _trackio(directory: Path) -> Opened:
    os.environ["TRACKIO_DIR"] = str(directory)
    import trackio

    trackio.init(project="bench", config={"lr": 1e-3}, embed=False)
    return Opened(lambda data, step: trackio.log(data, step=step), trackio.finish)


def _numbers(data: Data) -> Iterator[tuple[str, float]]:
    return ((key, value) for key, value in data.items() if not isinstance(value, str))


def _tensorboard(directory: Path) -> Opened:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(directory))

    def log(data: Data, step: int) -> None:
        values = [Summary.Value(tag=key, simple_value=value) for key, value in _numbers(data)]
        writer.add_event(Event(step=step, summary=Summary(value=values)))

    return Opened(log, writer.close)


def _tensorboardx(directory: Path) -> Opened:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(directory))

    def log(data: Data, step: int) -> None:
        for key, value in _numbers(data):
            writer.add_scalar(key, value, step)

    return Opened(log, writer.close)


def _mlflow(asynchronous: bool) -> Callable[[Path], Opened]:
    def open_(directory: Path) -> Opened:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{directory}/mlflow.db")
        mlflow.set_experiment("bench")
        mlflow.start_run()

        def finish() -> None:
            if asynchronous:
                mlflow.flush_async_logging()
            mlflow.end_run()

        return Opened(
            lambda data, step: mlflow.log_metrics(dict(_numbers(data)), step=step, synchronous=not asynchronous), finish
        )

    return open_


def _neptune(directory: Path) -> Opened:
    from neptune_scale import Run

    run = Run(project="bench/bench", run_id="bench", mode="offline", log_directory=str(directory))
    return Opened(lambda data, step: run.log_metrics(dict(_numbers(data)), step=step), run.close)


def _swanlab(directory: Path) -> Opened:
    import swanlab

    swanlab.init(project="bench", mode="offline", logdir=str(directory))
    return Opened(lambda data, step: swanlab.log(dict(_numbers(data)), step=step), swanlab.finish)


def _kohakuboard(directory: Path) -> Opened:
    from kohakuboard.client import Board

    board = Board(name="bench", base_dir=directory, capture_output=False)

    def log(data: Data, step: int) -> None:
        board.step()
        board.log(**dict(_numbers(data)))

    return Opened(log, board.finish)


def _aim(directory: Path) -> Opened:
    from aim import Run

    run = Run(repo=str(directory), system_tracking_interval=None)

    def log(data: Data, step: int) -> None:
        for key, value in _numbers(data):
            run.track(value, name=key, step=step)

    return Opened(log, run.close)


def _dvclive(directory: Path) -> Opened:
    from dvclive import Live

    live = Live(dir=str(directory / "dvclive"), save_dvc_exp=False, dvcyaml=None, report=None)

    def log(data: Data, step: int) -> None:
        live.step = step
        for key, value in _numbers(data):
            live.log_metric(key, value)
        live.make_summary()

    return Opened(log, live.end)


def _count_lines(directory: Path) -> int:
    return sum(line.endswith(b"\n") for line in (directory / "log.jsonl").read_bytes().splitlines(keepends=True))


def _count_asynctrack(directory: Path) -> int:
    import asynctrack
    from asynctrack.catchup import CatchUp

    (run,) = (directory / "bench").iterdir()
    with CatchUp([run]) as work:  # what `asynctrack sync` does
        while work.look() and not work.done:
            pass
    return sum(1 for _ in asynctrack.open_run(run).records())


def _count_in(pattern: str, query: str) -> Callable[[Path], int]:
    def count(directory: Path) -> int:
        total = 0
        for path in directory.rglob(pattern):
            with sqlite3.connect(path) as database:
                total += database.execute(query).fetchone()[0]
        return total

    return count


def _count_events(directory: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    return min((len(events.Scalars(tag)) for tag in events.Tags()["scalars"]), default=0)


def _count_wandb(directory: Path) -> int:
    from asynctrack.backends.wandb.files import WandbFile

    return sum(WandbFile(path).rows() for path in directory.rglob("*.wandb"))


def _count_dvclive(directory: Path) -> int:
    with (directory / "dvclive/plots/metrics/loss.tsv").open() as file:
        return sum(1 for _ in csv.DictReader(file, delimiter="\t"))


_SCALARS = "numbers only"

PEERS: Final = {
    peer.name: peer
    for peer in [
        Peer("nothing", _nothing, note="the floor: an empty call"),
        Peer("deque.append", _deque, note="the floor: kept in memory, written nowhere"),
        Peer("msgpack encode", _encode, packages=("msgspec",), note="the floor: encoded, written nowhere"),
        Peer("asynctrack", _asynctrack, _count_asynctrack, ("asynctrack",)),
        Peer("encode + os.write", _encode_and_write, _count_lines, ("msgspec",)),
        Peer("json, flush per step", _json_and_flush, _count_lines),
        Peer("logging, QueueHandler", _logging_queue, _count_lines),
        Peer("loguru, enqueue", _loguru, _count_lines, ("loguru",), most=20_000),
        Peer("wandb, offline", _wandb("offline"), _count_wandb, ("wandb",), most=20_000),
        Peer("trackio", _trackio, _count_in("*.db", "select count(*) from metrics"), ("trackio",)),
        Peer("tensorboard", _tensorboard, _count_events, ("tensorboard",), _SCALARS, 20_000),
        Peer("tensorboardX", _tensorboardx, _count_events, ("tensorboardX",), _SCALARS, 20_000),
        Peer(
            "mlflow", _mlflow(False), _count_in("mlflow.db", "select count(*) from metrics where key = 'loss'"), ("mlflow",),
            f"{_SCALARS}; a local SQLite store", 2_000,
        ),
        Peer(
            "mlflow, asynchronous", _mlflow(True), _count_in("mlflow.db", "select count(*) from metrics where key = 'loss'"),
            ("mlflow",), f"{_SCALARS}; a local SQLite store", 2_000,
        ),
        Peer("neptune-scale, offline", _neptune, None, ("neptune-scale",), f"{_SCALARS}; what it kept is not read", 20_000),
        Peer("swanlab, offline", _swanlab, None, ("swanlab",), f"{_SCALARS}; what it kept is not read", 20_000),
        Peer("kohakuboard", _kohakuboard, None, ("kohakuboard",), f"{_SCALARS}; what it kept is not read"),
        Peer("aim", _aim, None, ("aim",), f"{_SCALARS}; what it kept is not read", 10_000),
        Peer("dvclive", _dvclive, _count_dvclive, ("dvclive",), _SCALARS, 2_000),
    ]
}  # fmt: skip
