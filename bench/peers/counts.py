"""Counts the records that a process finds that has nothing but a peer's files, or its server. Each peer is read by its own reader where it has one."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.peers.peer import LENGTH_BYTES, server_home, server_url
from bench.wandb_server import at_rest, rows

# A server has all that it will get when nothing has come for so long.
_QUIET_S: Final = 5.0
_MLFLOW: Final = "select count(distinct step) from metrics where key = 'loss'"


def lines(directory: Path) -> int:
    return sum(line.endswith(b"\n") for line in (directory / "log.jsonl").read_bytes().splitlines(keepends=True))


def frames(directory: Path) -> int:
    data, at, found = (directory / "log.msgpack").read_bytes(), 0, 0
    while (start := at + LENGTH_BYTES) <= len(data):
        at = start + int.from_bytes(data[at:start], "little")
        found += at <= len(data)
    return found


def asynctrack(directory: Path) -> int:
    import asynctrack
    from asynctrack.cli.sync_job import SyncJob

    (run,) = (directory / "bench").iterdir()
    with SyncJob([run]) as work:  # what `asynctrack sync` does
        while work.poll() and not work.done:
            pass
    return sum(1 for _ in asynctrack.open_run(run).records())


def wandb_file(directory: Path) -> int:
    from asynctrack.backends.wandb.files import WandbFile

    return sum(WandbFile(path).rows() for path in directory.rglob("*.wandb"))


def wandb_server(_: Path) -> int:
    return at_rest(lambda: sum(rows(server_url()).values()), _QUIET_S)


def wandb_server_or_file(directory: Path) -> int:
    """Count what the server has and what `wandb sync` would still send."""
    return max(wandb_server(directory), wandb_file(directory))


def trackio(directory: Path) -> int:
    return _in_sqlite(directory.rglob("*.db"), "select count(*) from metrics")


def trackio_server(_: Path) -> int:
    return at_rest(lambda: trackio(server_home()), _QUIET_S)


def events(directory: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    return min((len(found.Scalars(tag)) for tag in found.Tags()["scalars"]), default=0)


def mlflow(directory: Path) -> int:
    return _in_sqlite(directory.rglob("mlflow.db"), _MLFLOW)


def mlflow_server(_: Path) -> int:
    return at_rest(lambda: mlflow(server_home()), _QUIET_S)


def neptune(directory: Path) -> int:
    """Count the steps among the operations that wait for the server."""
    from neptune_scale.sync.operations_repository import UpdateRunSnapshot

    steps = set()
    for path in directory.rglob("*.sqlite3"):
        with closing(sqlite3.connect(path)) as database:
            for (operation,) in database.execute("select operation from run_operations where operation_type = 0"):
                update = UpdateRunSnapshot.FromString(operation)
                if "loss" in update.append:
                    steps.add((update.step.whole, update.step.micro))
    return len(steps)


def swanlab(directory: Path) -> int:
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    steps = set()
    for path in directory.rglob("*.swanlab"):
        reader = DataStoreReader()
        reader.open(path)
        for encoded in reader:
            record = Record.FromString(encoded)
            if record.HasField("scalar") and record.scalar.key == "loss":
                steps.add(record.scalar.step)
        reader.close()
    return len(steps)


def kohakuboard(directory: Path) -> int:
    from kohakuboard.utils.board_reader import BoardReader

    (board,) = (path.parent for path in directory.rglob("metadata.json"))
    return len(BoardReader(board).get_scalar_data("loss")["steps"])


def aim(directory: Path) -> int:
    """Count in the run's container of values: its index, by which its `Repo` finds runs, is made by `aim up`."""
    from aim.storage.rockscontainer import RocksContainer

    found = 0
    for path in directory.glob(".aim/seqs/chunks/*"):
        keys = (
            key.partition(b"\xfeloss\xfeval\xfe")[2] for key, _ in RocksContainer(str(path), read_only=True).items()
        )
        found += sum(map(bool, keys))
    return found


def dvclive(directory: Path) -> int:
    with (directory / "dvclive/plots/metrics/loss.tsv").open() as file:
        return sum(1 for _ in csv.DictReader(file, delimiter="\t"))


def _in_sqlite(paths: Iterable[Path], query: str) -> int:
    total = 0
    for path in paths:
        with closing(sqlite3.connect(path)) as database:
            total += database.execute(query).fetchone()[0]
    return total
