"""One run, many processes, started by real launchers: torchrun, `mp.spawn`, DataLoader, joblib, accelerate, Ray."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ended, records, wait_until

from integrations.launched import assert_has, counts, launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_host")]
for _name in ("torch", "accelerate", "joblib", "ray", "cloudpickle"):
    pytest.importorskip(_name, reason="needs the frameworks: tests/README.md", exc_type=ImportError)

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "4"]
# Its ranks meet at a port that is free; without these it takes 29500 on every interface.
RENDEZVOUS = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]


# Each rank waits for all others, so that they have the run at the same time.
RANKS = """
import sys, time
import asynctrack
from told import told

with asynctrack.init("p", id=sys.argv[1] or None, dir="runs", join=True) as run:
    told(run.log)
    told(asynctrack.log)
    while {one.rank for one in run.writers.values()} != {0, 1, 2, 3}:
        time.sleep(0.01)
print(run.path)
"""
# The same in a process group of torch.
GROUP = f"""
import torch.distributed

torch.distributed.init_process_group("gloo")
{RANKS}
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("script", "options", "given", "run_id"),
    [
        (GROUP, ["--standalone"], "", None),
        (RANKS, ["--rdzv-id", "night"], "", "night"),
        (RANKS, [], "given", "given"),
    ],
    ids=["standalone", "rdzv-id", "id="],
)
def test_ranks_of_torchrun_have_one_run(
    tmp_path: Path, script: str, options: list[str], given: str, run_id: str | None
) -> None:
    path = Path(launch(tmp_path, script, given, by=[*TORCHRUN, *RENDEZVOUS, *options]))
    assert path.parent == tmp_path / "runs" / "p" and run_id in (None, path.name)
    writers = assert_has(path, {f"rank{rank}": 40 for rank in range(4)})
    assert [one.writer for one in writers.values() if one.is_owner] == ["rank0"]
    assert {one.status for one in writers.values()} == {"finished"}


def test_ranks_of_torchrun_without_an_id_are_told_how_to_give_one(tmp_path: Path) -> None:
    said = launch(tmp_path, RANKS, "", by=[*TORCHRUN, *RENDEZVOUS], fails=True)
    assert "needs an id that all processes of the run have in common: give id=" in said
    assert "--rdzv-id" in said
    assert not (tmp_path / "runs").exists()


# One rank is killed when all have logged; torchrun ends the others, which log until then. A worker that has yet to start cannot learn what killed
# a process, so each waits for it.
KILLED = """
import os, signal, sys, time
import asynctrack
from told import label, told

run = asynctrack.init("p", dir="runs", join=True)
told(run.log)
run.flush("journaled")
count = open(f"count/{label()}", "w", buffering=1)
open(f"gate/{label()}", "w").close()
while len(os.listdir("gate")) < 4:
    time.sleep(0.01)
if label() == sys.argv[1]:
    os.kill(os.getpid(), signal.SIGKILL)
while True:
    told(run.log, 1)
    count.write(".")
    count.flush()
    time.sleep(0.005)
"""


@pytest.mark.parametrize("killed", ["rank0", "rank2"])
def test_rank_of_torchrun_that_is_killed_is_named_and_nothing_is_lost(tmp_path: Path, killed: str) -> None:
    for name in ("gate", "count"):
        (tmp_path / name).mkdir()
    launch(tmp_path, KILLED, killed, by=[*TORCHRUN, *RENDEZVOUS, "--rdzv-id", "night"], fails=True)
    run = tmp_path / "runs" / "p" / "night"
    wait_until(lambda: ended(run), "the run has ended")
    found = Counter(str(record.writer) for record in records(run))
    for rank in (f"rank{rank}" for rank in range(4)):
        accepted = 20 + len((tmp_path / "count" / rank).read_text())
        assert accepted <= found[rank] <= accepted + (rank != killed)  # of a call that had not returned nobody can know
    writers = assert_has(run, found, status="crashed")
    assert {name: one.status for name, one in writers.items()} == {
        **dict.fromkeys(["rank0", "rank1", "rank2", "rank3"], "terminated"),
        killed: "crashed",
    }
    assert writers[killed].error == "killed by SIGKILL"


SPAWN = """
import json
import asynctrack
import torch.multiprocessing as mp
from told import told


def work(rank, run, told_to):
    told_to.put(told(run.log if rank else asynctrack.log))


if __name__ == "__main__":
    with asynctrack.init("p", id="run", dir="runs") as run:
        told_to = mp.get_context("spawn").SimpleQueue()
        mp.spawn(work, args=(run, told_to), nprocs=2)
        told_by = [told(run.log), told_to.get(), told_to.get()]
    print(json.dumps(told_by))
"""


def test_processes_of_torch_spawn_log_to_the_run_that_they_are_given_or_find(tmp_path: Path) -> None:
    told_by = json.loads(launch(tmp_path, SPAWN))
    writers = assert_has(tmp_path / "runs" / "p" / "run", counts(told_by))
    assert len(writers) == 3 and {one.status for one in writers.values()} == {"finished"}


# The data set has the run, and finds it too.
LOADER = """
import json
import asynctrack
from torch.utils.data import DataLoader, Dataset
from told import told


class Data(Dataset):
    def __init__(self, run):
        self.run = run

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return told(asynctrack.log), told(self.run.log)


if __name__ == "__main__":
    told_by = []
    with asynctrack.init("p", id="run", dir="runs") as run:
        loader = DataLoader(Data(run), batch_size=1, num_workers=2, multiprocessing_context="spawn")
        for (one,), (two,) in loader:
            told_by += [one, two, told(run.log)]
    print(json.dumps(told_by))
"""


def test_workers_of_a_data_loader_that_are_spawned_log_to_the_run(tmp_path: Path) -> None:
    told_by = json.loads(launch(tmp_path, LOADER))
    writers = assert_has(tmp_path / "runs" / "p" / "run", counts(told_by))
    assert len(writers) == 3 and {one.status for one in writers.values()} == {"finished"}


# loky keeps its processes from one call to the next, and from one run to the next.
LOKY = """
import json
import asynctrack, joblib
from told import told


def found(index):
    return told(asynctrack.log)


def attached(index):
    return told(asynctrack.attach().log)


def given(run):
    return told(run.log)


if __name__ == "__main__":
    told_by = []
    for name in ("one", "two"):
        with asynctrack.init(name, id="run", dir="runs") as run:
            parallel = joblib.Parallel(n_jobs=2)
            labels = parallel(joblib.delayed(found)(index) for index in range(4))
            labels += parallel(joblib.delayed(attached)(index) for index in range(4))
            labels += parallel(joblib.delayed(given)(run) for _ in range(4))
            labels += parallel(joblib.delayed(lambda: told(run.log))() for _ in range(4))
        told_by.append(labels)
    print(json.dumps(told_by))
"""


def test_processes_that_joblib_keeps_log_to_the_run_that_is_open(tmp_path: Path) -> None:
    for name, told_by in zip(("one", "two"), json.loads(launch(tmp_path, LOKY)), strict=True):
        assert len(told_by) == 16
        assert_has(tmp_path / "runs" / name / "run", counts(told_by))


# Ranks that `accelerate` has made ready; without the variable they have no id in common.
ACCELERATE = """
import asynctrack
from accelerate import Accelerator
from told import told

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
with asynctrack.init("p", dir="runs", join=True) as run:
    told(run.log)
    accelerator.wait_for_everyone()
accelerator.end_training()
"""


def test_ranks_of_accelerate_have_one_run(tmp_path: Path) -> None:
    command = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    launch(tmp_path, ACCELERATE, by=command, ASYNCTRACK_RUN_ID="night", HF_HOME=str(tmp_path))
    writers = assert_has(tmp_path / "runs" / "p" / "night", {"rank0": 20, "rank1": 20})
    assert [one.writer for one in writers.values() if one.is_owner] == ["rank0"]
    assert {one.status for one in writers.values()} == {"finished"}


RAY = """
import json, sys
import asynctrack, ray
from told import told


@ray.remote
class Actor:
    def __init__(self, run=None):
        self.run = run

    def work(self):
        return told(asynctrack.log if self.run is None else self.run.log)

    def close(self):
        asynctrack.finish()


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, _node_ip_address="127.0.0.1", _temp_dir=sys.argv[1])
    with asynctrack.init("p", id="run", dir="runs") as run:

        @ray.remote
        def captured():
            return told(run.log)

        variable = {"env_vars": {"ASYNCTRACK_RUN": str(run.path)}}
        actors = [Actor.remote(run), Actor.options(runtime_env=variable).remote()]
        told_by = ray.get([actor.work.remote() for actor in actors for _ in range(2)])
        told_by += ray.get([captured.remote() for _ in range(2)])
        ray.get([actor.close.remote() for actor in actors])
    ray.shutdown()
    print(json.dumps(told_by))
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Where Ray makes its sockets: their paths may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def test_actors_and_tasks_of_ray_log_to_the_run_that_they_are_given(tmp_path: Path, short_folder: Path) -> None:
    said = launch(tmp_path, RAY, short_folder, RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    told_by = json.loads(said)
    writers = assert_has(tmp_path / "runs" / "p" / "run", counts(told_by))
    assert len(counts(told_by)) >= 3
    assert [writers[label].status for label in {*told_by[:4]}] == ["finished", "finished"]


# A closure that cloudpickle takes to a process which knows no module of it.
CLOUDPICKLE = """
import copy, subprocess, sys
import asynctrack, cloudpickle

with asynctrack.init("p", id="run", dir="runs") as run:
    assert copy.deepcopy({"run": [run]})["run"][0] is run
    assert cloudpickle.loads(cloudpickle.dumps(run)) is run
    scope = run.scope("eval").bind({"fold": 3})

    def work():
        return [run.log({"loss": 1.0}), scope.log({"loss": 2.0})]

    call = "import pickle, sys; print(pickle.load(sys.stdin.buffer)())"
    print(subprocess.run([sys.executable, "-c", call], input=cloudpickle.dumps(work), stdout=-1, check=True).stdout.decode())
    run.log({"loss": 0.0})
"""


def test_closure_that_cloudpickle_carries_logs_to_its_run(tmp_path: Path) -> None:
    launch(tmp_path, CLOUDPICKLE)
    found = records(tmp_path / "runs" / "p" / "run")
    assert [record.data for record in found] == [{"loss": 1.0}, {"eval/loss": 2.0, "fold": 3}, {"loss": 0.0}]
    assert found[0].writer == found[1].writer != found[2].writer
