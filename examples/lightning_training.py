"""Lightning learns a line, tracked by asynctrack: python examples/lightning_training.py [directory of runs]

pip install torch lightning asynctrack
"""

import sys

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from asynctrack.integrations.lightning import AsyncLogger


class Line(pl.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.model = torch.nn.Linear(1, 1)

    def _loss(self, batch, name):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.log(name, loss)
        return loss

    def training_step(self, batch, index):
        return self._loss(batch, "train/loss")

    def validation_step(self, batch, index):
        self._loss(batch, "val/loss")

    def test_step(self, batch, index):
        self._loss(batch, "test/loss")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.lr)


def loader():
    x = torch.linspace(0, 1, 32)[:, None]
    return DataLoader(TensorDataset(x, 2 * x), batch_size=8)


def train(logger, epochs=3, **options):
    """Train from scratch, the same each time; then test."""
    pl.seed_everything(0)
    trainer = pl.Trainer(
        logger=logger, max_epochs=epochs, accelerator="cpu", log_every_n_steps=1, enable_progress_bar=False, **options
    )
    model = Line()
    trainer.fit(model, loader(), loader())
    trainer.test(model, loader(), verbose=False)
    return trainer


if __name__ == "__main__":
    logger = AsyncLogger("line", dir=sys.argv[1] if len(sys.argv) > 1 else "asynctrack_runs")  # the one line
    trainer = train(logger)
    print(f"test/loss {trainer.callback_metrics['test/loss']:.3f}; {logger.log_dir} has the run")
