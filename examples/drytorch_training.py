"""DRYTorch learns a line, tracked by asynctrack: python examples/drytorch_training.py [parent directory]

pip install torch drytorch==0.1.0rc11 asynctrack
"""

import sys

import torch
from drytorch import DataLoader, Experiment, LearningSchema, Loss, Model, Trainer, init_trackers
from drytorch.trackers.csv import CSVDumper
from torch.utils.data import Dataset

from asynctrack.integrations.drytorch import AsyncTracker


class Line(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, at):
        x = torch.tensor([at / len(self)])
        return x, 2 * x


def train(epochs=5):
    """Train in the experiment that is running."""
    mse = Loss(lambda output, target: ((output - target) ** 2).mean(), "MSE")
    trainer = Trainer(
        Model(torch.nn.Linear(1, 1), name="linear"),
        name="trainer",
        loader=DataLoader(Line(), batch_size=8),
        learning_schema=LearningSchema.adam(base_lr=0.1),
        loss=mse,
    )
    trainer.add_validation(DataLoader(Line(), batch_size=8))
    trainer.train(epochs)


if __name__ == "__main__":
    init_trackers(mode="minimal")
    experiment = Experiment({"lr": 0.1}, name="Line", par_dir=sys.argv[1] if len(sys.argv) > 1 else "experiments")
    tracker = AsyncTracker(backends=["jsonl"])
    experiment.trackers.subscribe(tracker)  # a run of asynctrack
    experiment.trackers.subscribe(AsyncTracker(CSVDumper()))  # a tracker of DRYTorch, on a thread of its own
    with experiment.create_run():
        train()
        epochs, metrics = tracker.load_metrics("linear")["trainer"]
    print(f"MSE {metrics['MSE'][-1]:.3f} after {epochs[-1]} epochs; {tracker.path} has the run")
