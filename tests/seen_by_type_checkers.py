"""Right and wrong uses of the public names, as type checkers see them. Nobody runs this: `test_types.py` has mypy and pyright check it.

A line that is right has no mark. A line that is wrong ends with `# error: CODE RULE`: what mypy calls the error, and what pyright does.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import pandas
import polars
import pyarrow

import asynctrack
import asynctrack.errors
import asynctrack.events
import asynctrack.integrations.logging
import asynctrack.testing
import asynctrack.wandb as wandb
from asynctrack.client.run_dict import RunDict


@dataclasses.dataclass
class Options:
    lr: float = 0.1


def init_takes_these(options: Options, parsed: argparse.Namespace) -> None:
    run = asynctrack.init("p", quiet=True, linger_s=0.1, tags=["a"], reinit="create_new")
    assert_type(run, asynctrack.Run)
    asynctrack.init()
    asynctrack.init("p", config={"lr": 0.1}, dir=Path("runs"), id="a", name="b", resume="allow")
    asynctrack.init("p", config=options, backends=["jsonl", asynctrack.TensorBoard(), asynctrack.WandB(project="p")])
    asynctrack.init("p", config=parsed, settings=asynctrack.Settings(linger_s=0.05), mode="offline", worker="thread")
    asynctrack.init("p", exit_timeout_s=1, sync_interval_s=0.5, after_exit_max_s=60, finish_timeout_s=5, straggler_s=5)
    asynctrack.init("p", when_full="block", queue_bytes=1 << 20, settings={"linger_s": 0.05}, backends=None)
    with asynctrack.init("p") as opened:
        assert_type(opened, asynctrack.Run)


def init_refuses_these() -> None:
    asynctrack.inti("p")  # error: attr-defined reportAttributeAccessIssue
    asynctrack.init("p", confg={})  # error: call-arg reportCallIssue
    asynctrack.init("p", lingr_s=1.0)  # error: call-arg reportCallIssue
    asynctrack.init("p", "name")  # error: call-arg reportCallIssue
    asynctrack.init(3)  # error: arg-type reportArgumentType
    asynctrack.init("p", linger_s="1")  # error: arg-type reportArgumentType
    asynctrack.init("p", resume=True)  # error: arg-type reportArgumentType
    asynctrack.init("p", mode="of")  # error: arg-type reportArgumentType
    asynctrack.init("p", worker="fork")  # error: arg-type reportArgumentType
    asynctrack.init("p", when_full="wait")  # error: arg-type reportArgumentType
    asynctrack.init("p", reinit="always")  # error: arg-type reportArgumentType
    asynctrack.init("p", backends=[asynctrack.JSONLines])  # error: list-item reportArgumentType
    asynctrack.init("p", backends=asynctrack.JSONLines())  # error: arg-type reportArgumentType
    asynctrack.init("p", tags=3)  # error: arg-type reportArgumentType
    asynctrack.init("p", settings=3)  # error: arg-type reportArgumentType
    asynctrack.init("p", quiet="yes")  # error: arg-type reportArgumentType


def runs_take_these(run: asynctrack.Run) -> None:
    assert_type(run.log({"loss": 0.5}), bool)
    assert_type(run.log({"loss": 0.5}, step=3), bool)
    assert_type(run.log({"loss": 0.5}, 3, commit=False), bool)
    assert_type(asynctrack.log({"loss": 0.5}, step=3), bool)
    assert_type(run.config, RunDict)
    assert_type(run.summary, RunDict)
    assert_type(run.id, str)
    assert_type(run.name, str)
    assert_type(run.path, Path)
    assert_type(run.tags, tuple[str, ...])
    assert_type(run.notes, str | None)
    assert_type(run.backends, Mapping[str, asynctrack.Backend])
    assert_type(run.stats(), asynctrack.RunStats)
    assert_type(run.stats().backends["jsonl"], asynctrack.BackendStats)
    assert_type(run.flush("synced", timeout_s=1), asynctrack.RunStats)
    assert_type(run.finish({"best": 1.0}, exit_code=1), asynctrack.RunStats)
    assert_type(run.last_checkpoint(), dict[str, Any] | None)
    assert_type(run.bind({"phase": "train"}), asynctrack.Scope)
    assert_type(run.scope("train", every=10), asynctrack.Scope)
    assert_type(asynctrack.current(), asynctrack.Run | None)
    assert_type(asynctrack.current_backend(asynctrack.Memory), asynctrack.Memory)
    assert_type(asynctrack.finish(), asynctrack.RunStats | None)
    run.name = "another"
    run.tags = ["a"]
    run.config.lr = run.config["lr"]
    run.config.update({"lr": 0.1}, batch=32)
    run.summary["best"] = 0.1
    run.define_metric("loss", goal="minimize")
    run.checkpoint(epoch=3)


async def runs_take_these_in_a_loop(run: asynctrack.Run) -> None:
    assert_type(await run.alog({"loss": 0.5}, step=3), bool)
    assert_type(await run.afinish(), asynctrack.RunStats)
    async with run as opened:
        assert_type(opened, asynctrack.Run)


def runs_refuse_these(run: asynctrack.Run) -> None:
    run.log(loss=1)  # error: call-arg reportCallIssue
    run.log({}, stepp=3)  # error: call-arg reportCallIssue
    run.log({}, step="3")  # error: arg-type reportArgumentType
    run.log({}, sync=True)  # error: call-arg reportCallIssue
    run.log("x")  # error: arg-type reportArgumentType
    run.log()  # error: call-arg reportCallIssue
    asynctrack.log({}, stepp=3)  # error: call-arg reportCallIssue
    asynctrack.log(0.5)  # error: arg-type reportArgumentType
    asynctrack.run  # error: attr-defined reportAttributeAccessIssue  # noqa: B018
    asynctrack.Tensorboard()  # error: attr-defined reportAttributeAccessIssue
    run.finish(1)  # error: arg-type reportArgumentType
    run.flush("sent")  # error: arg-type reportArgumentType
    run.confg  # error: attr-defined reportAttributeAccessIssue  # noqa: B018
    run.name = 3  # error: assignment reportAttributeAccessIssue
    run.mode = "online"  # error: misc reportAttributeAccessIssue
    run.define_metric("loss", goal="up")  # error: arg-type reportArgumentType
    run.scope("train", evry=2)  # error: call-arg reportCallIssue


def scopes_take_these(scope: asynctrack.Scope) -> None:
    assert_type(scope.log({"loss": 0.5}, step=3), bool)
    assert_type(scope.scope("inner").bind({"seed": 1}), asynctrack.Scope)
    assert_type(scope.last, int | None)
    scope.last = 3


def scopes_refuse_these(scope: asynctrack.Scope) -> None:
    scope.log({}, stepp=3)  # error: call-arg reportCallIssue
    scope.log(loss=1)  # error: call-arg reportCallIssue
    scope.scope("inner", arrays="drop")  # error: arg-type reportArgumentType
    scope.lst  # error: attr-defined reportAttributeAccessIssue  # noqa: B018


def trackers_take_these() -> None:
    tracker = asynctrack.Tracker("p", config={"lr": 0.1}, backends=["jsonl"], linger_s=0.1, tags=["a"], quiet=True)
    assert_type(tracker.init({"seed": 1}), asynctrack.Run)
    assert_type(tracker.log({"loss": 0.5}, step=3), bool)
    assert_type(tracker.run, asynctrack.Run | None)
    assert_type(tracker.finish(), asynctrack.RunStats | None)
    assert_type(asynctrack.Tracker.from_config("tracker.yaml"), asynctrack.Tracker)
    assert_type(asynctrack.Tracker.from_config({"project": "p"}), asynctrack.Tracker)


def trackers_refuse_these(tracker: asynctrack.Tracker) -> None:
    asynctrack.Tracker()  # error: call-arg reportCallIssue
    asynctrack.Tracker("p", confg={})  # error: call-arg reportCallIssue
    asynctrack.Tracker("p", id="twice")  # error: call-arg reportCallIssue
    asynctrack.Tracker("p", linger_s="1")  # error: arg-type reportArgumentType
    asynctrack.Tracker("p", {"lr": 0.1})  # error: call-arg reportCallIssue
    tracker.log({}, stepp=3)  # error: call-arg reportCallIssue
    asynctrack.Tracker.from_config(3)  # error: arg-type reportArgumentType


def settings_take_these() -> None:
    assert_type(asynctrack.Settings(linger_s=0.1, queue_bytes=None).linger_s, float)
    assert_type(asynctrack.JSONLines(file="a.jsonl", not_finite="null").file, str)
    asynctrack.set_default_backends(["jsonl", asynctrack.Memory()])


def settings_refuse_these(settings: asynctrack.Settings) -> None:
    asynctrack.Settings(lingr_s=0.1)  # error: call-arg reportCallIssue
    asynctrack.Settings(linger_s="0.1")  # error: arg-type reportArgumentType
    asynctrack.JSONLines(flie="a.jsonl")  # error: call-arg reportCallIssue
    asynctrack.JSONLines(not_finite="none")  # error: arg-type reportArgumentType
    asynctrack.JSONLines("a.jsonl")  # error: arg-type reportCallIssue
    asynctrack.TensorBoard(flsh_s=1.0)  # error: call-arg reportCallIssue
    asynctrack.set_default_backends([asynctrack.Memory])  # error: list-item reportArgumentType
    settings.linger_s = 1.0  # error: misc reportAttributeAccessIssue


def readers_give_these(reader: asynctrack.RunReader) -> None:
    assert_type(asynctrack.open_run("runs/p/a"), asynctrack.RunReader)
    assert_type(asynctrack.open_run("runs/p/a").to_pandas(), pandas.DataFrame)
    assert_type(reader.to_polars("all"), polars.DataFrame)
    assert_type(reader.to_arrow("all"), pyarrow.Table)
    assert_type(reader.config, dict[str, Any])
    assert_type(reader.last_record(), asynctrack.Record | None)
    for record in reader.records():
        assert_type(record, asynctrack.Record)
        assert_type(record.step, int)


def readers_refuse_these(reader: asynctrack.RunReader) -> None:
    reader.to_pandas("first")  # error: arg-type reportArgumentType
    reader.to_arrow("first")  # error: arg-type reportArgumentType
    reader.to_panda()  # error: attr-defined reportAttributeAccessIssue
    asynctrack.open_run()  # error: call-arg reportCallIssue
    asynctrack.open_run(3)  # error: arg-type reportArgumentType


class Shout(asynctrack.Backend, frozen=True, kw_only=True, tag="shout"):
    word: str = "hey"

    def open(self, context: asynctrack.Context) -> asynctrack.Sink:
        assert_type(context.config, dict[str, Any])
        return Shouting()


class Shouting(asynctrack.Sink):
    def write(self, batch: asynctrack.Batch) -> None:
        assert_type(batch.records, list[asynctrack.Record])
        raise asynctrack.Rejected("too loud", [0])


class Wrong(asynctrack.Backend, frozen=True, kw_only=True, tag="wrong"):
    def open(self, context: asynctrack.Context) -> str:  # error: override reportIncompatibleMethodOverride
        return Shout(wrd="hey").word  # error: call-arg reportCallIssue


def events_and_errors(event: asynctrack.events.Event, error: asynctrack.errors.InvalidSettings) -> None:
    if isinstance(event, asynctrack.events.Metrics):
        assert_type(event.run_id, str)
    assert_type(error.problems, tuple[str, ...])
    asynctrack.events.Metrix  # error: attr-defined reportAttributeAccessIssue  # noqa: B018
    asynctrack.errors.InvalidSetings  # error: attr-defined reportAttributeAccessIssue  # noqa: B018
    asynctrack.testing.Scriptd  # error: attr-defined reportAttributeAccessIssue  # noqa: B018
    asynctrack.backends.JSONLines  # error: attr-defined reportAttributeAccessIssue  # noqa: B018


def handlers(run: asynctrack.Run) -> None:
    handler = asynctrack.integrations.logging.AsyncHandler("p", logging.INFO, mode="offline", linger_s=0.1)
    assert_type(handler.run, asynctrack.Run)
    asynctrack.integrations.logging.AsyncHandler("p", lingr_s=0.1)  # error: call-arg reportCallIssue
    asynctrack.integrations.logging.AsyncHandler(3)  # error: arg-type reportArgumentType


def wandb_takes_these(video: wandb.Video | None, config: wandb.Config, run: wandb.sdk.wandb_run.Run) -> None:
    run = wandb.init(project="p", mode="disabled", config={"lr": 0.1}, backends=["jsonl"], linger_s=0.1)
    run.tags += ("x",)
    run.log({"x": 1}, step=3, commit=True)
    wandb.log({"x": 1}, step=3)
    assert_type(run.asynctrack, asynctrack.Run)
    assert_type(wandb.run, wandb.Run | None)
    assert_type(wandb.config, wandb.Config)
    wandb.summary["best"] = wandb.config.lr
    wandb.define_metric("loss", summary="min")
    wandb.finish()


def wandb_refuses_these(run: wandb.Run) -> None:
    wandb.inti()  # error: attr-defined reportAttributeAccessIssue
    wandb.init(projct="p")  # error: call-arg reportCallIssue
    wandb.init(linger_s="1")  # error: arg-type reportArgumentType
    run.log({"x": 1}, stepp=3)  # error: call-arg reportCallIssue
    wandb.log({"x": 1}, stepp=3)  # error: call-arg reportCallIssue
    wandb.log(loss=1)  # error: call-arg reportCallIssue
    run.tagz  # error: attr-defined reportAttributeAccessIssue  # noqa: B018
    wandb.run.summary  # error: union-attr reportOptionalMemberAccess  # noqa: B018
    wandb.define_metric("loss", summry="min")  # error: call-arg reportCallIssue
