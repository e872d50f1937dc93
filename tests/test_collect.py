"""Collecting: hosts that share a folder, each with real processes, shared memory of its own and a name; and one run of all of them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from merged_rings import assert_merged, make_part
from shared_folder import Host, assert_each_once, collect, collector, command, ends_well, hosts, no_command_is_left
from support import ROOT, lines, run_confined, start, wait_until

import asynctrack
from asynctrack.journal import manifest as manifests
from asynctrack.merging.collector import FolderCollector
from asynctrack.testing import CarrierContract, Carrying

__all__ = ["hosts", "no_command_is_left"]  # fixtures


def test_ranks_of_two_hosts_are_one_run(tmp_path: Path, hosts: list[Host]) -> None:
    for at, host in enumerate(hosts):
        for rank in (2 * at, 2 * at + 1):
            host.start(rank, 50)
    for host in hosts:
        host.wait()
    out = tmp_path / "merged"
    code, told, problems = collect(tmp_path / "shared", "--dir", out)
    assert (code, problems) == (0, "")
    assert "finished" in told
    run = out / "p" / "job"
    assert_merged(run, [host.part for host in hosts])
    assert_each_once(run, {f"rank{rank}": 50 for rank in range(4)})
    found = manifests.load(run)
    assert (found.status, list(found.backends)) == ("finished", ["jsonl"])
    assert sorted(one.host for one in found.hosts) == ["node-1", "node-2"]
    assert sorted(one.host for one in found.writers) == ["node-1", "node-1", "node-2", "node-2"]
    assert all(list(manifests.load(host.part).backends) == ["files"] for host in hosts)
    assert ends_well("sync", run)
    assert ends_well("verify", run)
    assert len(lines(run)) == 200


@pytest.mark.system
def test_merged_run_is_followed_and_delivered_live(tmp_path: Path, hosts: list[Host]) -> None:
    hosts[0].start(0, 300)
    out = tmp_path / "merged"
    (tmp_path / "shared").mkdir(exist_ok=True)
    child = collector(tmp_path / "shared", "--dir", out, "--follow")
    run = out / "p" / "job"
    wait_until(lambda: (run / "run.json").exists(), "the run is merged")
    deliverer = command("sync", run, "--to", "jsonl", "file=live.jsonl", "--follow")
    waiter = command("wait", run, "--until", "step == 299")
    hosts[0].wait()
    for other in (waiter, deliverer):
        told, problems = other.communicate(timeout=30)
        assert other.returncode == 0, told + problems
    child.communicate(timeout=30)
    assert child.returncode == 0
    assert len((run / "live.jsonl").read_text().splitlines()) == 300


@pytest.mark.system
def test_merged_run_is_delivered_to_one_more_backend(tmp_path: Path) -> None:
    parts = [make_part(tmp_path / "shared", "a", rank=0), make_part(tmp_path / "shared", "b", rank=2)]
    assert collect(tmp_path / "shared")[0] == 0
    run = tmp_path / "shared" / "p" / "r"
    assert_merged(run, parts)
    assert ends_well("sync", run, "--to", "jsonl")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 60


def test_folder_without_parts_is_said(tmp_path: Path) -> None:
    assert collect(tmp_path) == (0, f"no host has a part of a run in {tmp_path}\n", "")
    make_part(tmp_path, "a", rank=0)
    assert f"give {tmp_path}" in collect(tmp_path / "p")[1]


def test_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    code, _, problems = collect(tmp_path / "nothing")
    assert code == 2
    assert "expected a folder that hosts share" in problems


def test_refused_part_is_said_and_the_others_are_merged(tmp_path: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2)]
    shutil.copytree(parts[1], tmp_path / "p" / "r@copy")
    (tmp_path / "p" / "r@link").symlink_to(parts[1])
    (tmp_path / "p" / "..@x").mkdir()
    (tmp_path / "p" / "r@noise" / "journal").mkdir(parents=True)
    (tmp_path / "p" / "r@noise" / "journal" / "000001.atj").write_bytes(b"noise" * 100)
    code, told, problems = collect(tmp_path)
    assert code == 1
    assert "finished" in told
    assert "its journal is that of host b: this is a copy of it" in problems
    assert "000001.atj is no segment of a journal" in problems
    assert_merged(tmp_path / "p" / "r", parts)


def test_nothing_is_left_of_a_run_of_which_all_parts_are_refused(tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0)
    part.rename(part.with_name("other@a"))
    code, _, problems = collect(tmp_path)
    assert (code, "it is of run 'r' of project 'p'" in problems) == (1, True)
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["other@a"]


def test_what_is_not_merged_yet_is_said(tmp_path: Path) -> None:
    part = make_part(tmp_path, "a", rank=0, segment_bytes=1 << 20)
    segment = part / "journal" / "000001.atj"
    content = bytearray(segment.read_bytes())
    content[content.index(b"loss")] ^= 1  # as where a network's disk shows zeros that are still to be filled
    segment.write_bytes(content)
    code, told, problems = collect(tmp_path)
    assert code == 1
    assert re.search(r"running  1; going on: a; behind: a by \d\.\d\d kB", told)
    assert "fail their checksums" in problems and "it is waited for" in problems


@pytest.mark.system
def test_collecting_again_goes_on_where_it_was(tmp_path: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0)]
    assert collect(tmp_path)[0] == 0
    parts.append(make_part(tmp_path, "b", rank=2, end=False))
    code, told, _ = collect(tmp_path, "--json")
    assert code == 0
    (run,) = json.loads(told)["runs"]
    assert (run["status"], run["hosts"]) == ("running", {"a": "finished", "b": "running"})
    assert_merged(tmp_path / "p" / "r", parts)


@pytest.mark.system
def test_sync_does_not_end_a_merged_run_whose_hosts_go_on(tmp_path: Path) -> None:
    make_part(tmp_path, "a", rank=0, end=False)
    assert collect(tmp_path)[0] == 0
    run = tmp_path / "p" / "r"
    child = command("sync", run)
    _, problems = child.communicate(timeout=60)
    assert (child.returncode, "a of its hosts has not ended" in problems) == (1, True)
    assert manifests.load(run).status == "running"
    assert ends_well("sync", run, "--to", "jsonl")
    assert len(lines(run)) == 30


IMPATIENT = """
import sys
from asynctrack.cli.commands import collect
collect._BEGIN_WAIT_S = 0.1  # it is a minute
collect._LINE_S = 0.1  # it is five seconds
from asynctrack.cli import main
sys.exit(main(["collect", sys.argv[1], "--follow"]))
"""


@pytest.mark.system
def test_collector_that_follows_waits_for_the_run_of_its_job(tmp_path: Path) -> None:
    make_part(tmp_path, "a", rank=0)
    assert collect(tmp_path)[0] == 0
    alone = start(IMPATIENT, tmp_path)
    alone.communicate(timeout=30)
    assert alone.returncode == 0
    child = start(IMPATIENT, tmp_path, SLURM_JOB_ID="4711")
    with pytest.raises(subprocess.TimeoutExpired):
        child.communicate(timeout=2)
    part = make_part(tmp_path, "a", rank=0, run="4711")
    told, problems = child.communicate(timeout=30)
    assert (child.returncode, "4711" in told) == (0, True)
    assert "1 run of 1 host, 0 going on, waiting for a run to begin\n" in problems
    assert_merged(tmp_path / "p" / "4711", [part])


@pytest.mark.system
def test_sync_says_which_parts_of_other_hosts_are_not_complete(tmp_path: Path) -> None:
    parts = [make_part(tmp_path, "node-1", rank=0, end=False), make_part(tmp_path, "node-2", rank=2)]
    child = command("sync", tmp_path, ASYNCTRACK_HOST="login")
    told, problems = child.communicate(timeout=60)
    assert (child.returncode, told) == (0, "no runs of this host there\n")
    assert f"1 part of another host is left alone, and not complete: {parts[0]}; this host is login" in problems
    assert not command("sync", tmp_path, ASYNCTRACK_HOST="node-1").communicate(timeout=60)[1]
    assert manifests.load(parts[0]).status != "running"


@pytest.mark.system
def test_sync_does_not_call_a_run_missing_that_it_has_just_named(tmp_path: Path) -> None:
    make_part(tmp_path, "a", rank=0, end=False)
    assert collect(tmp_path)[0] == 0
    told, problems = command("sync", tmp_path / "p" / "r").communicate(timeout=60)
    assert (told, "is skipped" in problems) == ("", True)


@pytest.mark.system
def test_host_that_is_silent_is_named_as_lost(tmp_path: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0), make_part(tmp_path, "b", rank=2, end=False)]
    for path in (parts[1] / "journal").iterdir():
        os.utime(path, (1.0, 1.0))
    code, told, _ = collect(tmp_path)
    assert (code, "lost: b" in told) == (0, True)
    assert manifests.load(tmp_path / "p" / "r").status == "finished"


def test_merged_run_that_is_removed_while_it_goes_on_is_merged_again(tmp_path: Path) -> None:
    parts = [make_part(tmp_path, "a", rank=0, end=False), make_part(tmp_path, "b", rank=2, end=False)]
    run = tmp_path / "p" / "r"
    with FolderCollector(tmp_path, tmp_path) as collecting:
        while collecting.turn():
            pass
        shutil.rmtree(run)
        assert collecting.turn()
        while collecting.turn():
            pass
        assert collecting.report[0].is_whole
    assert_merged(run, parts)


ON_A_FULL_DISK = """
import json, sys
from pathlib import Path
from asynctrack.merging.collector import FolderCollector
with FolderCollector(Path(sys.argv[1]), Path(sys.argv[2])) as collecting:
    while collecting.turn():
        pass
    (found,) = collecting.report
print(json.dumps([found.trouble, found.waiting, found.refused]))
"""


@pytest.mark.system
def test_full_disk_is_told_of_the_merged_run_and_not_of_the_part(tmp_path: Path) -> None:
    part, out = make_part(tmp_path / "shared", "a", rank=0, per_batch=200), tmp_path / "out"
    out.mkdir()
    mounts = f"mount -t tmpfs -o size=16k tmpfs {out}"
    _, waiting, refused = run_confined(mounts, ON_A_FULL_DISK, tmp_path / "shared", out)
    assert (list(waiting), refused) == (["a"], {})
    assert waiting["a"].startswith(f"{part} is not merged now: {out / 'p' / 'r'} cannot be written: ")


@pytest.mark.system
def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    make_part(tmp_path / "shared", "a", rank=0)
    (out := tmp_path / "out").mkdir()
    trouble, _, _ = run_confined(f"mount -t tmpfs -o ro tmpfs {out}", ON_A_FULL_DISK, tmp_path / "shared", out)
    assert trouble.startswith(f"{out / 'p' / 'r'} cannot be written: ") and "Read-only file system" in trouble


@pytest.mark.system
def test_collecting_once_ends_though_the_hosts_go_on(tmp_path: Path, hosts: list[Host]) -> None:
    for host, rank in zip(hosts, (0, 1), strict=True):
        host.start(rank, 1_000_000)
    wait_until(lambda: all(host.is_journaled() for host in hosts), "there is something of each host")
    for _ in range(3):
        code, told, problems = collect(tmp_path / "shared")
        assert (code, "running" in told, problems) == (0, True, "")


FORKS = """
import json, os
import asynctrack
run = asynctrack.init("p", id="job", quiet=True)
run.log({"parent": 1})
if not (pid := os.fork()):
    run.log({"child": 1})
    run.finish()
    os._exit(0)
os.waitpid(pid, 0)
run.finish()
print(json.dumps(str(run.path)))
"""


@pytest.mark.system
def test_records_of_forked_children_are_those_of_their_parents(tmp_path: Path, hosts: list[Host]) -> None:
    for host, rank in zip(hosts, (0, 1), strict=True):
        host.ranks[rank] = start(FORKS, **host.environment(rank))
        host.wait()
    assert collect(tmp_path / "shared")[0] == 0
    records = asynctrack.open_run(tmp_path / "shared" / "p" / "job").records()
    told = sorted((str(record.writer), *record.data) for record in records)
    assert told == [("rank0", "child"), ("rank0", "parent"), ("rank1", "child"), ("rank1", "parent")]


@pytest.mark.system
def test_second_collector_is_refused(tmp_path: Path) -> None:
    make_part(tmp_path, "a", rank=0, end=False)
    first = collector(tmp_path, "--follow")
    run = tmp_path / "p" / "r"
    wait_until(lambda: (run / "run.json").exists(), "the run is merged")
    code, _, problems = collect(tmp_path)
    assert (code, f"process {first.pid} writes to {run}" in problems) == (1, True)
    _, problems = command("sync", run).communicate(timeout=60)
    assert f"process {first.pid} writes to" in problems
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert first.returncode == 130


def shown(run: Path) -> dict[str, dict[str, Any]]:
    """What `show --hosts --json` says, by host."""
    child = command("show", run, "--hosts", "--json")
    told, problems = child.communicate(timeout=60)
    assert (child.returncode, problems) == (0, "")
    return {row["host"]: row for row in json.loads(told)["hosts"]}


@pytest.mark.system
@pytest.mark.parametrize("dies", [0, 1])
def test_host_that_dies_is_lost_and_its_return_reopens_the_run(tmp_path: Path, hosts: list[Host], dies: int) -> None:
    """The host of the owner, or another."""
    for host, rank in zip(hosts, (0, 1), strict=True):
        host.start(rank, 1_000_000)
    wait_until(lambda: all(host.logged(rank) for host in hosts for rank in host.ranks), "all ranks log")
    out = tmp_path / "merged"
    child = collector(tmp_path / "shared", "--dir", out, "--follow", "--lost-after-s", 2)
    run = out / "p" / "job"
    wait_until(lambda: (run / "run.json").exists() and len(manifests.load(run).hosts) == 2, "both hosts are merged")
    hosts[dies].die(dies)
    (tmp_path / "counters" / "stop").touch()
    hosts[1 - dies].wait()
    told, problems = child.communicate(timeout=60)
    assert child.returncode == 0, told + problems
    assert f"lost: node-{dies + 1}" in told
    found, dead = manifests.load(run), f"node-{dies + 1}"
    assert found.status == ("crashed" if dies == 0 else "finished")
    assert {one.host: one.status for one in found.hosts} == {dead: "lost", f"node-{2 - dies}": "finished"}
    assert {one.writer: one.status for one in found.writers} == {
        f"rank{dies}": "crashed",
        f"rank{1 - dies}": "finished",
    }
    assert (shown(run)[dead]["status"], shown(run)[dead]["since"] is None) == ("lost", False)
    back = command("sync", tmp_path / "shared", **hosts[dies].environment(dies))
    back.communicate(timeout=60)
    assert collect(tmp_path / "shared", "--dir", out)[0] == 0
    found = manifests.load(run)
    assert {one.host: one.status for one in found.hosts} == {dead: "crashed", f"node-{2 - dies}": "finished"}
    assert found.status == ("crashed" if dies == 0 else "finished")
    assert_merged(run, [host.part for host in hosts])
    assert_each_once(run, {f"rank{at}": hosts[at].logged(at) for at in (0, 1)}, killed=(f"rank{dies}",))


@pytest.mark.system
def test_commands_work_on_a_merged_run_while_it_grows(tmp_path: Path, hosts: list[Host]) -> None:
    for host, rank in zip(hosts, (0, 1), strict=True):
        host.start(rank, 1_000_000)
    out = tmp_path / "merged"
    (tmp_path / "shared").mkdir(exist_ok=True)
    child = collector(tmp_path / "shared", "--dir", out, "--follow")
    run = out / "p" / "job"
    wait_until(lambda: (run / "run.json").exists() and len(manifests.load(run).hosts) == 2, "both hosts are merged")
    tail = command("tail", run, "-n", 0, "-f", "--json")
    waiter = command("wait", run, "--json")
    assert ends_well("wait", run, "--until", "step >= 100", "--timeout-s", 30)
    (listed,) = json.loads(output_of("ls", out, "--json"))
    assert (listed["status"], listed["hosts"]) == ("running", {"node-1": "running", "node-2": "running"})
    assert "2/2" in output_of("ls", out)
    assert json.loads(output_of("show", run, "--json"))["status"] == "running"
    found = json.loads(output_of("show", run, "--hosts", "--json"))
    assert (found["status"], found["collected"]) == ("running", True)
    assert {row["host"]: list(row["writers"]) for row in found["hosts"]} == {"node-1": ["rank0"], "node-2": ["rank1"]}
    assert all(row["records"] > 0 and row["heard_at"] and row["behind_bytes"] is not None for row in found["hosts"])
    output_of("export", run, "--format", "jsonl", "--output", tmp_path / "some.jsonl")
    assert len((tmp_path / "some.jsonl").read_text().splitlines()) >= 100
    (tmp_path / "counters" / "stop").touch()
    for host in hosts:
        host.wait()
    child.communicate(timeout=60)
    assert child.returncode == 0
    told, problems = tail.communicate(timeout=30)
    assert (tail.returncode, problems) == (0, "")
    for rank in (0, 1):
        steps = [line["_step"] for line in map(json.loads, told.splitlines()) if line["rank"] == rank]
        assert steps == list(range(steps[0], hosts[rank].logged(rank)))
    told, problems = waiter.communicate(timeout=30)
    assert (waiter.returncode, json.loads(told)["status"]) == (0, "finished")
    clocks = {one.host: one.clock_offset_ns for one in manifests.load(run).hosts}
    assert all(offset_ns is not None and abs(offset_ns) < 10**8 for offset_ns in clocks.values())
    assert {host: row["behind_bytes"] for host, row in shown(run).items()} == {"node-1": 0, "node-2": 0}


@pytest.mark.system
def test_example_of_several_machines_ends_where_its_collector_cannot_begin(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvicorn'] = None\n")
    words = [sys.executable, ROOT / "examples" / "several_machines.py", tmp_path / "out", "--http"]
    surroundings = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=surroundings)
    assert (told.returncode, "asynctrack[serve]" in told.stderr, "Traceback" in told.stderr) == (2, True, False)


@pytest.mark.system
@pytest.mark.parametrize("way", ["folder", "http"])
def test_example_of_several_machines_shows_one_run(tmp_path: Path, way: str) -> None:
    words = [sys.executable, ROOT / "examples" / "several_machines.py", tmp_path, "--steps", 60]
    words += ["--http"] if way == "http" else []
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done
    said = done.stderr.splitlines()
    assert all(re.search(r"rank3 \(process \d+\) crashed \(killed by SIGKILL\)", line) for line in said), done
    assert "rank3 of node-2 was killed: it has crashed at step 30." in done.stdout
    found = manifests.load(tmp_path / "merged" / "demo" / "job42")
    assert (found.status, {one.host for one in found.hosts}) == ("finished", {"node-1", "node-2"})
    assert {one.writer: one.status for one in found.writers if one.status != "finished"} == {"rank3": "crashed"}
    assert list(found.backends) == ["jsonl"]
    parts = {"folder": "shared/demo/job42@{0}", "http": "{0}/asynctrack_runs/demo/job42@{0}"}[way]
    assert_merged(
        tmp_path / "merged" / "demo" / "job42", [tmp_path / parts.format(host) for host in ("node-1", "node-2")]
    )


def output_of(*arguments: object) -> str:
    """What a command that works prints."""
    child = command(*arguments)
    told, problems = child.communicate(timeout=60)
    assert (child.returncode, problems) == (0, ""), problems
    return told


class _Collecting:
    """`asynctrack collect --follow` as a carrier; one that ends, since all runs have, begins again."""

    def __init__(self, parts: Path, out: Path) -> None:
        parts.mkdir(exist_ok=True)
        self._command = (parts, "--dir", out, "--follow")
        self._stopping = threading.Event()
        self._child = collector(*self._command)
        self._thread = threading.Thread(target=self._keep_going)
        self._thread.start()

    def _keep_going(self) -> None:
        while not self._stopping.is_set():
            self._child.communicate()
            if not self._stopping.is_set():
                self._child = collector(*self._command)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        self._stopping.set()
        while self._thread.is_alive():
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)
            self._thread.join(0.1)


@pytest.mark.system
class TestFolder(CarrierContract):
    def carry(self, parts: Path, out: Path) -> Carrying:
        return _Collecting(parts, out)


@pytest.mark.system
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_or_twice_when_ranks_workers_and_the_collector_are_killed(
    tmp_path: Path, hosts: list[Host], seed: int
) -> None:
    chance = random.Random(seed)
    for at, host in enumerate(hosts):
        for rank in range(4 * at, 4 * at + 4):
            host.start(rank, 1_000_000)
    wait_until(lambda: all(host.logged(rank) for host in hosts for rank in host.ranks), "all ranks log")
    out = tmp_path / "merged"
    child = collector(tmp_path / "shared", "--dir", out, "--follow")
    run = out / "p" / "job"
    wait_until(lambda: (run / "run.json").exists(), "the run is merged")
    for _ in range(6):
        _wait_for_growth(run)
        child.kill()
        child.communicate()
        child = collector(tmp_path / "shared", "--dir", out, "--follow")
        host = chance.choice(hosts)
        if chance.random() < 0.5:
            host.kill_worker()
    hosts[0].kill(2)
    hosts[1].kill(7)
    (tmp_path / "counters" / "stop").touch()
    for host in hosts:
        host.wait()
    told, problems = child.communicate(timeout=60)
    assert (child.returncode, "asynctrack:" in problems) == (0, False), told + problems
    assert_merged(run, [host.part for host in hosts])
    logged = {f"rank{rank}": hosts[rank // 4].logged(rank) for rank in range(8)}
    assert_each_once(run, logged, killed=("rank2", "rank7"))
    assert {one.writer for one in manifests.load(run).writers if one.status == "crashed"} == {"rank2", "rank7"}


def _wait_for_growth(run: Path) -> None:
    before = _bytes_in(run)
    wait_until(lambda: _bytes_in(run) > before, "the merged journal grows")


def _bytes_in(run: Path) -> int:
    return sum(path.stat().st_size for path in (run / "journal").iterdir())
