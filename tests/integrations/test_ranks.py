"""Frameworks that train on several ranks: one run has what rank 0 logs, and the code of the others runs as it does there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import INSTALLED, ended, manifest, records, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("shared_host")]
pytest.importorskip("torch", reason="needs the frameworks: tests/README.md", exc_type=ImportError)

SCRIPTS = Path(__file__).parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# Arbitrary: ten times what they take on a machine that has nothing else to do.
_LONGEST_S = 240.0


def train(script: str, directory: Path, *arguments: str, by: tuple[str, ...] = ()) -> dict[int, Any]:
    """Run a script on two ranks; what each found."""
    command = [sys.executable, *by, str(SCRIPTS / f"{script}.py"), str(directory), *arguments]
    # Workers leave as late as elsewhere: to join a run beside a worker that leaves says that its queue was removed (FLAKES.md).
    given = {
        **os.environ,
        "PYTHONPATH": str(INSTALLED),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "ASYNCTRACK_IDLE_EXIT_S": "5",
    }
    done = subprocess.run(command, env=given, cwd=directory, capture_output=True, text=True, timeout=_LONGEST_S)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in said and "asynctrack:" not in said, said
    return {rank: json.loads((directory / f"rank{rank}.json").read_text()) for rank in (0, 1)}


def the_run(project: Path) -> Path:
    """The only run of a project, which has ended."""
    (run,) = project.iterdir()
    wait_until(lambda: ended(run), "the run has ended")
    return run


def counts(run: Path) -> Counter[str]:
    """How often each name was logged."""
    return Counter(key for record in records(run) for key in record.data)


# Each rank has 2 of the 4 batches of an epoch. The rest is what the callback in the script logs on each rank.
IN_A_FIT = {"train/loss": 6, "val/loss": 3, "own": 3, "deep/own": 3, "module": 3}


@pytest.mark.parametrize(
    ("arguments", "more"),
    [(["ddp"], {"test/loss": 1, "epoch": 10}), (["ddp_spawn", "open"], {"before": 1, "epoch": 9})],
    ids=["ddp", "ddp_spawn, of a run that is open"],
)
def test_lightning_on_two_ranks_is_one_run(arguments: list[str], more: dict[str, int], tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch", exc_type=ImportError)
    found = train("lightning_ranks", tmp_path, *arguments)
    run = the_run(tmp_path / "runs" / "line")
    assert counts(run) == {**IN_A_FIT, **more}
    told = manifest(run)
    assert told["status"] == "finished" and told["config"] == {"lr": 0.1, "epochs": 3} and told["summary"]["last"] == 6
    assert [found[rank]["experiment"][0] for rank in (0, 1)] == ["Run", "SilentRun"]
    for own in found.values():
        assert Path(own["log_dir"]) == Path(own["save_dir"], own["name"], own["version"])
        assert Path(own["checkpoints"]) == run / "checkpoints" and Path(own["best"]).is_relative_to(run)
        assert own["experiment"][1:] == [own["version"], own["log_dir"]]
    assert found[0]["version"] == run.name and Path(found[0]["best"]).exists()


def test_a_trainer_under_torchrun_is_one_run(tmp_path: Path) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    found = train("transformers_ranks", tmp_path, by=TORCHRUN)
    run = the_run(tmp_path / "runs" / "llama")
    assert found[0] == ["Run", str(run)] and found[1][0] == "SilentRun"
    logged = counts(run)
    assert (logged["train/loss"], logged["eval/loss"], logged["own"], logged["module"]) == (4, 3, 4, 4)
    assert manifest(run)["status"] == "finished"
    joined = the_run(tmp_path / "runs" / "joined")
    of_ranks = {
        rank: Counter(key for record in records(joined) if record.writer == rank for key in record.data)
        for rank in ("rank0", "rank1")
    }
    assert of_ranks["rank1"] == {"own": 4, "module": 4}
    assert [of_ranks["rank0"][key] for key in ("train/loss", "eval/loss", "own", "module")] == [4, 2, 4, 4]
    assert manifest(joined)["status"] == "finished" and manifest(joined)["config"]["max_steps"] == 4


def test_drytorch_and_noether_in_a_group_have_a_run_each_on_rank_0(tmp_path: Path) -> None:
    pytest.importorskip("drytorch", exc_type=ImportError)
    found = train("group_ranks", tmp_path, by=TORCHRUN)
    assert found == {0: {"noether": True, "drytorch": True}, 1: {"noether": False, "drytorch": False}}
    noether = the_run(tmp_path / "out" / "asynctrack_runs" / "noether")
    assert [record.data["loss"] for record in records(noether)] == [0.5] and manifest(noether)["summary"]["best"] == 0.5
    drytorch = the_run(tmp_path / "asynctrack_runs" / "Line")
    losses = [record for record in records(drytorch) if "trainer-MSE" in record.data.get("linear", {})]
    assert [record.step for record in losses] == [1, 2] and manifest(drytorch)["status"] == "finished"
