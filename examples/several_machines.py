"""Plays one training on several machines, all on this one: each has its own memory and name, and their parts become one run while they log.

    python examples/several_machines.py [DIR] [--http] [--machines 2] [--ranks 2] [--steps 200]

A machine is a directory, a shared memory of its own (`ASYNCTRACK_SHM`) and a name (`ASYNCTRACK_HOST`); on real machines you set none of them. Its ranks call
`asynctrack.init()` with the same id, and `ASYNCTRACK_COLLECT` says where their parts go: to a folder that all machines share, which `asynctrack collect --follow`
merges, or with `--http` to `asynctrack serve`. The last rank is killed half-way.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asynctrack

PROJECT, RUN = "demo", "job42"
COMMAND = [sys.executable, "-m", "asynctrack"]


def main() -> None:
    """Start everything, and show what came of it."""
    given = arguments()
    if given.train:
        train(given.steps, dies=given.dies)
        return
    directory = Path(given.directory or tempfile.mkdtemp(prefix="several-machines-")).absolute()
    merged = directory / "merged"
    collector, address = (serve if given.http else follow)(directory, merged)
    with tempfile.TemporaryDirectory(dir=memory(), prefix="asynctrack-machines-") as memories:
        ranks = [start(rank, given, address, directory, Path(memories)) for rank in range(given.machines * given.ranks)]
        run = merged / PROJECT / RUN
        wait_for(run / "run.json")
        print(f"While they log, {run} grows:\n")
        show("wait", run, "--until", f"step >= {given.steps // 4}", "--timeout-s", "60")
        show("show", run, "--hosts")
        for rank in ranks:
            rank.wait()
        show("wait", run, "--timeout-s", "60")
        collector.terminate()  # `collect --follow` ends by itself, `serve` goes on for other runs
        collector.wait()
    print("All have ended:\n")
    show("show", run, "--hosts")
    show("ls", merged)
    show("show", run, "--keys", "loss")
    for one in asynctrack.open_run(run).writers:
        if one.status != "finished":
            print(f"{one.writer} of {one.host} was killed: it has {one.status} at step {one.last_step}.")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", metavar="DIR", help="for all files (default: a temporary directory)")
    parser.add_argument("--http", action="store_true", help="send by HTTP: needs asynctrack[http,serve]")
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=2, help="processes on each machine")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)  # what each rank is started with
    parser.add_argument("--dies", action="store_true", help=argparse.SUPPRESS)  # and the last one
    return parser.parse_args()


def train(steps: int, *, dies: bool) -> None:
    """Be one rank: this is all that a training has to do. The one that dies does so half-way."""
    rank = int(os.environ["RANK"])
    with asynctrack.init(PROJECT, id=RUN, config={"lr": 0.1}, quiet=True) as run:
        for step in range(steps):
            time.sleep(0.02)  # where a training computes
            run.log({"loss": math.exp(-3 * step / steps) + 0.02 * random.random(), "rank": rank}, step=step)
            if dies and step == steps // 2:
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out


def follow(directory: Path, merged: Path) -> tuple[subprocess.Popen[str], str]:
    """Start what merges the parts in a shared folder; returns that, and what machines are told of where their parts go."""
    shared = directory / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    command = [*COMMAND, "collect", shared, "--dir", merged, "--follow"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True), str(shared)


def serve(directory: Path, merged: Path) -> tuple[subprocess.Popen[str], str]:
    """Start what merges the parts that come by HTTP; returns the same."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [*COMMAND, "serve", "--listen", "127.0.0.1:0", "--dir", merged, "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    if not (said := server.stdout.readline()):
        sys.exit(server.wait())  # it has said why it cannot be started
    return server, json.loads(said)["url"]


def start(
    rank: int, given: argparse.Namespace, address: str, directory: Path, memories: Path
) -> subprocess.Popen[bytes]:
    """Start a rank on its machine."""
    name = f"node-{rank // given.ranks + 1}"
    disk, own_memory = directory / name, memories / name
    for place in (disk, own_memory):
        place.mkdir(parents=True, exist_ok=True)
    machine = {"ASYNCTRACK_SHM": str(own_memory), "ASYNCTRACK_HOST": name, "ASYNCTRACK_IDLE_EXIT_S": "0.1"}
    job = {"ASYNCTRACK_COLLECT": address, "RANK": str(rank), "WORLD_SIZE": str(given.machines * given.ranks)}
    command = [sys.executable, Path(__file__).absolute(), "--train", "--steps", str(given.steps)]
    command += ["--dies"] if rank == given.machines * given.ranks - 1 else []
    return subprocess.Popen(command, env={**os.environ, **machine, **job}, cwd=disk)


def memory() -> str | None:
    """Return where memory can be had as files; None for the temporary directory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{path} did not come")
        time.sleep(0.05)


def show(*words: object) -> None:
    """Run a command of asynctrack, as a person would."""
    print("$", "asynctrack", *words, flush=True)
    subprocess.run([*COMMAND, *map(str, words)], check=False)
    print(flush=True)


if __name__ == "__main__":
    main()
