"""Two ranks of one torch.distributed group use the drop-ins of Noether and DRYTorch, each as the other does: torchrun ... group_ranks.py DIRECTORY

Each rank writes down what it found.
"""

import json
import os
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
sys.path[:0] = [str(Path(__file__).parents[2] / "examples")]

import drytorch_training  # noqa: E402
import torch  # noqa: E402
from drytorch import Experiment, init_trackers  # noqa: E402

from asynctrack.integrations import drytorch, noether  # noqa: E402


def with_noether(directory: Path) -> bool:
    tracker = noether.AsyncTracker(noether.AsyncTrackerConfig(kind="asynctrack"))
    tracker.init("cpu", "cars", None, {"lr": 0.1}, "one", str(directory / "out"))
    tracker.log({"loss": 0.5, "update": 1})
    tracker.set_summary("best", 0.5)
    tracker.summarize_logvalues()
    is_open = tracker.run is not None
    tracker.close()
    return is_open


def with_drytorch(directory: Path) -> bool:
    init_trackers(mode="minimal")
    experiment = Experiment({"lr": 0.1}, name="Line", par_dir=directory)
    tracker = drytorch.AsyncTracker()
    experiment.trackers.subscribe(tracker)
    with experiment.create_run(run_id="one"):
        drytorch_training.train(2)
        return tracker.run is not None


def main() -> None:
    directory, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found = {"noether": with_noether(directory), "drytorch": with_drytorch(directory)}
    (directory / f"rank{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
