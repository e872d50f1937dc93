"""Services behind a merged run: the ranks of two hosts are one run there, with each row once, whatever happens to the collector and the delivery."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared_folder import Host, collector, command, hosts, no_command_is_left
from support import start, wait_until
from wandb_fixtures import server, surroundings
from wandb_server import StoredRun, WandbServer

__all__ = ["hosts", "no_command_is_left", "server", "surroundings"]  # fixtures

pytest.importorskip("wandb")
pytestmark = pytest.mark.system

RANKS = 8
RECORDS = 60
RANK = """
import json, os, sys, time
import asynctrack
rank, url, writers, go_on, records = int(os.environ["RANK"]), *sys.argv[1:4], int(sys.argv[4])
quick = {"x_stats_sampling_interval": 3600.0, "disable_git": True, "disable_code": True}
backend = asynctrack.WandB(base_url=url, settings=quick, writers=writers)
run = asynctrack.init("p", id="job", config={f"of_{rank}": rank}, backends=[backend], quiet=True)
for i in range(records):
    while i == records // 2 and not os.path.exists(go_on):
        time.sleep(0.005)
    run.log({"i": i, "rank": rank}, step=i)
    time.sleep(0.005)
run.finish()
print(json.dumps(str(run.path)))
"""


def start_ranks(hosts: list[Host], *arguments: object) -> None:
    """Start eight ranks, four on each host."""
    for rank in range(RANKS):
        host = hosts[rank * len(hosts) // RANKS]
        host.ranks[rank] = start(RANK, *arguments, RECORDS, **host.environment(rank))


def the_run(server: WandbServer) -> StoredRun:
    """The one run that the server has."""
    (stored,) = server.runs.values()
    return stored


@pytest.mark.parametrize("writers", ["owner", "prefix"])
def test_ranks_of_two_hosts_are_one_run_of_wandb(
    tmp_path: Path, hosts: list[Host], server: WandbServer, writers: str
) -> None:
    """The collector and the delivery are killed on the way."""
    # Without it the collector that is killed may have merged all, and the next one waits a minute for another run.
    go_on = tmp_path / "go_on"
    start_ranks(hosts, server.url, writers, go_on)
    shared, run = tmp_path / "shared", tmp_path / "merged" / "p" / "job"
    shared.mkdir(exist_ok=True)
    child = collector(shared, "--dir", tmp_path / "merged", "--follow")
    wait_until(lambda: (run / "run.json").exists(), "the run is merged")
    child.kill()
    child.communicate()
    child = collector(shared, "--dir", tmp_path / "merged", "--follow")
    go_on.touch()
    for host in hosts:
        host.wait()
    told, problems = child.communicate(timeout=60)
    assert child.returncode == 0, told + problems
    first = command("sync", run)
    wait_until(lambda: server.runs and the_run(server).lines, "something was delivered")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = command("sync", run)
    told, problems = again.communicate(timeout=60)
    assert again.returncode == 0, told + problems
    stored = the_run(server)
    assert (stored.name, stored.exit_code, stored.changed) == ("job", 0, [])
    assert stored.values().items() >= {f"of_{rank}": rank for rank in range(RANKS)}.items()
    if writers == "owner":
        assert [(row["i"], row["rank"]) for row in stored.rows()] == [(i, 0) for i in range(RECORDS)]
    else:
        found = Counter((key, row[key]) for row in stored.rows() for key in row if key.endswith("/i"))
        assert found == {(f"rank{rank}/i", i): 1 for rank in range(RANKS) for i in range(RECORDS)}


SHOWS = """
import json, sys
import asynctrack
url, picture = sys.argv[1:]
quick = {"x_stats_sampling_interval": 3600.0, "disable_git": True, "disable_code": True}
run = asynctrack.init("p", id="job", backends=[asynctrack.WandB(base_url=url, settings=quick)], quiet=True)
run.log({"shown": asynctrack.Image(picture)})
run.finish()
print(json.dumps(str(run.path)))
"""


def test_picture_of_a_host_is_at_wandb_though_its_path_is_gone(
    tmp_path: Path, hosts: list[Host], server: WandbServer
) -> None:
    picture = tmp_path / "x.png"
    Image.fromarray(np.full((4, 5, 3), 100, "u1")).save(picture)
    content = picture.read_bytes()
    hosts[0].ranks[0] = start(SHOWS, server.url, picture, **{**hosts[0].environment(0), "WORLD_SIZE": "1"})
    hosts[0].wait()
    picture.unlink()
    for arguments in (("collect", tmp_path / "shared"), ("sync", tmp_path / "shared" / "p" / "job")):
        child = command(*arguments)
        told, problems = child.communicate(timeout=60)
        assert child.returncode == 0, told + problems
    stored = the_run(server)
    assert content in stored.files.values()
    assert [row["shown"]["_type"] for row in stored.rows()] == ["image-file"]
