"""Lightning trains on two ranks, and each uses its logger as the other does: python lightning_ranks.py DIRECTORY STRATEGY [open]

Each rank writes down what it found. With "open", the run is open before the ranks are launched.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
sys.path[:0] = [str(Path(__file__).parents[2] / "examples")]

import lightning.pytorch as pl  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.utilities.rank_zero import rank_zero_only  # noqa: E402
from lightning_training import Line, loader  # noqa: E402

import asynctrack  # noqa: E402
from asynctrack.integrations.lightning import AsyncLogger  # noqa: E402


class Curious(pl.Callback):
    """Does on each rank what a careless model does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        logger = trainer.logger
        experiment = logger.experiment
        experiment.log({"own": 1.0}, step=trainer.global_step)
        experiment.summary["last"] = trainer.global_step
        experiment.config.update(epochs=3)
        experiment.scope("deep").log({"own": 2.0})
        asynctrack.log({"module": 3.0})
        if not trainer.is_global_zero:  # what is no method of a run either
            experiment.add_image("grid", None, global_step=1)
            experiment["x"].append(1)
            experiment["x"] = 1

    def on_train_end(self, trainer: Any, model: Any) -> None:
        logger = trainer.logger
        found = {
            "rank": rank_zero_only.rank,
            "log_dir": logger.log_dir,
            "save_dir": logger.save_dir,
            "version": logger.version,
            "name": logger.name,
            "experiment": [type(logger.experiment).__name__, logger.experiment.id, str(logger.experiment.path)],
            "checkpoints": trainer.checkpoint_callback.dirpath,
            "best": trainer.checkpoint_callback.best_model_path,
            "metrics": sorted(trainer.callback_metrics),
        }
        (self.directory / f"rank{rank_zero_only.rank}.json").write_text(json.dumps(found))


def main() -> None:
    directory, strategy = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    logger = AsyncLogger("line", dir=directory / "runs")
    if sys.argv[3:] == ["open"]:
        logger.experiment.log({"before": 0.0})
    trainer = pl.Trainer(
        logger=logger, callbacks=[Curious(directory)], strategy=strategy, devices=2, accelerator="cpu", max_epochs=3, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=directory,
    )  # fmt: skip
    trainer.fit(Line(), loader(), loader())
    if strategy == "ddp":
        trainer.test(Line(), loader(), verbose=False)


if __name__ == "__main__":
    main()
