"""What mypy sees of the public names. Nobody runs this: `mypy` checks it, and an `ignore` that is not needed is an error, too."""

from __future__ import annotations

from typing import assert_type

import asynctrack
import asynctrack.wandb as wandb
from asynctrack.client.run_dict import RunDict


def of_asynctrack() -> None:
    run = asynctrack.init("p", quiet=True, linger_s=0.1, tags=["a"], reinit="create_new")
    assert_type(run.log({"x": 1}, step=3), bool)
    assert_type(run.config, RunDict)
    assert_type(run.name, str)
    run.name = "another"
    run.tags = ["a"]
    run.config.lr = run.config["lr"]
    run.define_metric("loss", goal="minimize")


def of_wandb(video: wandb.Video | None, config: wandb.Config, run: wandb.sdk.wandb_run.Run) -> None:
    run = wandb.init(project="p", mode="disabled")
    run.tags += ("x",)
    run.log({"x": 1}, step=3, commit=True)
    assert_type(wandb.run, wandb.Run | None)
    assert_type(wandb.config, wandb.Config)
    wandb.summary["best"] = wandb.config.lr


def mistakes_in_asynctrack(run: asynctrack.Run) -> None:
    asynctrack.inti("p")  # type: ignore[attr-defined]
    asynctrack.run  # type: ignore[attr-defined]  # noqa: B018
    asynctrack.init("p", lingr_s=1.0)  # type: ignore[call-arg]
    asynctrack.init("p", linger_s="1")  # type: ignore[arg-type]
    asynctrack.init("p", resume=True)  # type: ignore[arg-type]
    run.log({"x": 1}, stepp=3)  # type: ignore[call-arg]
    run.log({"x": 1}, sync=True)  # type: ignore[call-arg]
    run.log("x")  # type: ignore[arg-type]
    run.finish(1)  # type: ignore[arg-type]
    run.confg  # type: ignore[attr-defined]  # noqa: B018
    run.define_metric("loss", goal="up")  # type: ignore[arg-type]


def mistakes_in_wandb(run: wandb.Run) -> None:
    wandb.inti()  # type: ignore[attr-defined]
    run.log({"x": 1}, stepp=3)  # type: ignore[call-arg]
    run.tagz  # type: ignore[attr-defined]  # noqa: B018
