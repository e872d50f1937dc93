"""The trackers, each set up as its documentation recommends. Nothing of one is imported before it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from bench.peers.peer import Data, Opened, numbers, server_url

Open = Callable[[Path], Opened]


def asynctrack(backends: Callable[[], list[Any]] | None = None) -> Open:
    """Set up asynctrack with its default backend, or with these."""

    def open_(directory: Path) -> Opened:
        import asynctrack

        run = asynctrack.init("bench", dir=directory, backends=backends() if backends else None)
        return Opened(lambda data, step: run.log(data, step), run.finish)

    return open_


def to_wandb() -> list[Any]:
    import asynctrack

    return ["jsonl", asynctrack.WandB(base_url=server_url())]


def to_mlflow() -> list[Any]:
    import asynctrack

    return ["jsonl", asynctrack.MLflow(tracking_uri=server_url())]


def wandb(mode: Literal["online", "offline"]) -> Open:
    def open_(directory: Path) -> Opened:
        os.environ["WANDB_SILENT"] = "true"
        if mode == "online":
            os.environ["WANDB_BASE_URL"] = server_url()
        import wandb

        run = wandb.init(project="bench", dir=directory, mode=mode, config={"lr": 1e-3})
        return Opened(lambda data, step: run.log(data, step=step), run.finish)

    return open_


def trackio(served: bool = False) -> Open:
    def open_(directory: Path) -> Opened:
        os.environ["TRACKIO_DIR"] = str(directory)
        import trackio

        where = {"server_url": server_url()} if served else {}
        trackio.init(project="bench", config={"lr": 1e-3}, embed=False, **where)
        return Opened(lambda data, step: trackio.log(data, step=step), trackio.finish)

    return open_


def tensorboard(directory: Path) -> Opened:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(directory))

    def log(data: Data, step: int) -> None:
        values = [Summary.Value(tag=key, simple_value=value) for key, value in numbers(data)]
        writer.add_event(Event(step=step, summary=Summary(value=values)))

    return Opened(log, writer.close)


def tensorboardx(directory: Path) -> Opened:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(directory))

    def log(data: Data, step: int) -> None:
        for key, value in numbers(data):
            writer.add_scalar(key, value, step)

    return Opened(log, writer.close)


def mlflow(asynchronous: bool, served: bool = False) -> Open:
    def open_(directory: Path) -> Opened:
        import mlflow

        mlflow.set_tracking_uri(server_url() if served else f"sqlite:///{directory}/mlflow.db")
        mlflow.set_experiment("bench")
        mlflow.start_run()

        def log(data: Data, step: int) -> None:
            mlflow.log_metrics(dict(numbers(data)), step=step, synchronous=not asynchronous)

        def finish() -> None:
            if asynchronous:
                mlflow.flush_async_logging()
            mlflow.end_run()

        return Opened(log, finish)

    return open_


def neptune(directory: Path) -> Opened:
    from neptune_scale import Run

    run = Run(project="bench/bench", run_id="bench", mode="offline", log_directory=str(directory))
    return Opened(lambda data, step: run.log_metrics(dict(numbers(data)), step=step), run.close)


def swanlab(directory: Path) -> Opened:
    import swanlab

    swanlab.init(project="bench", mode="offline", logdir=str(directory))
    return Opened(lambda data, step: swanlab.log(dict(numbers(data)), step=step), swanlab.finish)


def kohakuboard(directory: Path) -> Opened:
    from kohakuboard.client import Board

    board = Board(name="bench", base_dir=directory, capture_output=False)

    def log(data: Data, step: int) -> None:
        board.step()
        board.log(**dict(numbers(data)))

    return Opened(log, board.finish)


def aim(directory: Path) -> Opened:
    from aim import Run

    run = Run(repo=str(directory), system_tracking_interval=None)

    def log(data: Data, step: int) -> None:
        for key, value in numbers(data):
            run.track(value, name=key, step=step)

    return Opened(log, run.close)


def dvclive(directory: Path) -> Opened:
    from dvclive import Live

    live = Live(dir=str(directory / "dvclive"), save_dvc_exp=False, dvcyaml=None, report=None)

    def log(data: Data, step: int) -> None:
        live.step = step
        for key, value in numbers(data):
            live.log_metric(key, value)
        live.make_summary()

    return Opened(log, live.end)
