"""A DRYTorch experiment that learns a line: training, validation, a test, and a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import drytorch
import torch
from drytorch import DataLoader, Experiment, LearningSchema, Loss, Model, Test, Trainer
from drytorch.core.tracking import Tracker
from torch.utils import data

BATCH = 4
SAMPLES = 16


class Line(data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, at: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tensor([at / SAMPLES])
        return x, 2 * x


def loader() -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    return DataLoader(Line(), batch_size=BATCH)


def make_trainer(model: Model[torch.Tensor, torch.Tensor]) -> Trainer[torch.Tensor, torch.Tensor, torch.Tensor]:
    loss = Loss(lambda output, target: ((output - target) ** 2).mean(), "MSE")
    schema = LearningSchema.adam(base_lr=0.1)
    trainer = Trainer(model, name="trainer", loader=loader(), learning_schema=schema, loss=loss)
    trainer.add_validation(loader())
    return trainer


def make_model() -> Model[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Model(torch.nn.Linear(1, 1), name="linear")


def experiment(directory: Path, *trackers: Tracker, name: str = "Line") -> Experiment[dict[str, float]]:
    """An experiment with these trackers only."""
    drytorch.remove_all_default_trackers()
    made: Experiment[dict[str, float]] = Experiment({"lr": 0.1}, name=name, par_dir=directory, tags=["lr=0.1"])
    made.trackers.subscribe(*trackers)
    return made


def train(epochs: int, *, test: bool = False, save: bool = False) -> None:
    """Train a model of its own in the experiment that is running."""
    model = make_model()
    trainer = make_trainer(model)  # kept to the end: DRYTorch registers an actor by its id(), once
    trainer.train(epochs)
    if save:
        model.save_state()
    if test:
        loss = Loss(lambda output, target: ((output - target) ** 2).mean(), "MSE")
        Test(model, name="test", loader=loader(), metric=loss)()


class KillAfter(Tracker):
    """Kills the process when an epoch has ended."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def notify(self, event: object) -> None:
        if type(event).__name__ == "EndEpochEvent" and event.epoch == self.epoch:  # type: ignore[attr-defined]  # it has one
            os.kill(os.getpid(), signal.SIGKILL)


def killed_experiment(make: Callable[[Path], Tracker], directory: Path, epoch: int) -> None:
    """Train until an epoch, and be killed."""
    with experiment(directory, make(directory), KillAfter(epoch)).create_run(run_id="killed"):
        train(1_000)
    sys.exit("it was not killed")
