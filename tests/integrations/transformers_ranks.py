"""Hugging Face's Trainer trains on two ranks, and each uses its callback as the other does: torchrun ... transformers_ranks.py DIRECTORY

Each rank writes down what it found.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
sys.path[:0] = [str(Path(__file__).parents[2] / "examples")]

import torch  # noqa: E402
from transformers import TrainerCallback  # noqa: E402
from transformers_training import make_trainer  # noqa: E402

import asynctrack  # noqa: E402
from asynctrack.integrations.transformers import AsyncCallback  # noqa: E402


class Careless(TrainerCallback):  # type: ignore[misc]  # transformers'
    """Logs on each rank, as the pages show it for one."""

    def __init__(self, track: AsyncCallback) -> None:
        self.track = track

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        run = self.track.run
        assert run is not None
        run.log({"own": state.global_step}, step=state.global_step)
        run.log_artifact(__file__)
        asynctrack.log({"module": state.global_step}, step=state.global_step)


def main() -> None:
    directory, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    track = AsyncCallback("llama", dir=directory / "runs")
    trainer = make_trainer(directory / "out", track, Careless(track))
    trainer.train()
    trainer.evaluate()
    assert track.run is not None
    (directory / f"rank{rank}.json").write_text(json.dumps([type(track.run).__name__, str(track.run.path)]))
    joined = AsyncCallback("joined", id="one", join=True, dir=directory / "runs")
    make_trainer(directory / "out", joined, Careless(joined)).train()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
