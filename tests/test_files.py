"""The backends that write files in columns and tables: each value is there once, whatever is killed, and their files can be read at any moment."""

from __future__ import annotations

import inspect
import json
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
import yaml
from delivery_support import deliverers, kill_workers
from support import start, wait_until, workers

import asynctrack
from asynctrack import CSV, JSON, Backend, Batch, Context, Parquet, Record
from asynctrack.backends.files import json_columns
from asynctrack.backends.files.reserved import free_name, put_back
from asynctrack.reading.without_journal import find_fallback
from asynctrack.records.codec import flatten, from_json
from asynctrack.testing import JournaledRun, deliver

Row = dict[str, Any]

N_SEEDS = 12

# Logs from a number on, says so when the worker has delivered some, and waits to be killed.
SESSION = """
import asynctrack, sys, time
kind, first = sys.argv[2], int(sys.argv[3])
backend = getattr(asynctrack, kind)()
run = asynctrack.init("p", id="run", dir=sys.argv[1], backends=[backend], resume="allow", config={"session": first})
for i in range(first, first + 300):
    run.log({"i": i, "train": {"half": i / 2}, **({f"late/{first}": i} if i % 100 == 99 else {})}, step=i)
run.flush("journaled")
print("logged", flush=True)
while True:
    run.log({"more": first}, step=0)
    run.flush("delivered", timeout_s=1)
"""


def columns_of_json(run: Path) -> dict[str, list[Any]]:
    found = json.loads((run / "metrics.json").read_text())
    return {name: from_json(values) for name, values in found.items() if name not in ("config", "run_summary")}


def columns_of_records(run: Path) -> dict[str, list[Any]]:
    """The values of each key as a loader finds them."""
    found = find_fallback(run, {})
    columns: dict[str, list[Any]] = {}
    for record in found() if found is not None else ():
        for key, value in record.data.items():
            columns.setdefault(key, []).append(value)
    return columns


READ: dict[str, Callable[[Path], dict[str, list[Any]]]] = {
    "JSON": columns_of_json,
    "CSV": columns_of_records,
    "Parquet": columns_of_records,
}


@pytest.mark.system
@pytest.mark.parametrize("kind", ["JSON", "CSV", "Parquet", "YAML"])
def test_killed_with_its_worker_and_resumed_each_value_is_there_once(kind: str, rough_host: Path, runs: Path) -> None:
    for first in (0, 300):
        child = start(SESSION, runs, kind, first)
        assert child.stdout is not None
        assert child.stdout.readline() == "logged\n"
        time.sleep(random.uniform(0, 0.3))  # somewhere between two saves of the cursor
        child.kill()
        pids = deliverers(rough_host)
        kill_workers(rough_host)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        child.communicate()
        wait_until(lambda: not workers(rough_host), "the worker has ended")
    with asynctrack.init(
        "p", id="run", dir=runs, backends=[getattr(asynctrack, kind)()], resume="must", config={"again": True}
    ) as run:
        run.log({"i": 600, "train": {"half": 300.0}}, step=600)
        run.summary["best"] = math.inf
    stats = run.stats()
    assert stats.behind == 0
    assert stats.backends[kind.lower()].last_error is None
    if kind == "YAML":
        assert yaml.safe_load((run.path / "config.yaml").read_text()) == {"session": 300, "again": True}
        assert yaml.safe_load((run.path / "summary.yaml").read_text()) == {"best": math.inf}
        assert yaml.safe_load((run.path / "metadata.yaml").read_text())["status"] == "finished"
        return
    found = READ[kind](run.path)
    assert found["i"] == list(range(601))
    assert found["train/half"] == [i / 2 for i in range(601)]
    assert (found["late/0"], found["late/300"]) == ([99, 199, 299], [399, 499, 599])
    assert found["more"] == asynctrack.open_run(run.path).columns("all")["more"].values
    assert not [path for path in run.path.rglob(".*") if path.is_file()], "nothing unfinished is left"


@pytest.mark.system
def test_what_a_power_cut_takes_from_the_journal_stays_in_the_files(own_host: Path, runs: Path) -> None:
    kinds = ["json", "csv", "parquet"]
    with asynctrack.init("p", id="run", dir=runs, backends=kinds, worker="thread") as run:
        for i in range(10):
            run.log({"i": i, "train/half": i / 2})
        run.flush()
        journal = {path.name: path.read_bytes() for path in (run.path / "journal").iterdir()}
        for i in range(10, 20):
            run.log({"i": i, "train/half": i / 2})
    for path in (run.path / "journal").iterdir():
        path.write_bytes(journal.get(path.name, b"")) if path.name in journal else path.unlink()
    with asynctrack.init("p", id="run", dir=runs, backends=kinds, worker="thread", resume="must") as run:
        for i in range(20, 25):
            run.log({"i": i, "train/half": i / 2, "new": 1})
    assert asynctrack.open_run(run.path).columns()["i"].values == [*range(10), *range(20, 25)]
    for folder in ("csv", "parquet"):
        shutil.move(run.path / folder, runs / folder)
    assert columns_of_json(run.path)["i"] == list(range(25))
    for folder in ("csv", "parquet"):
        alone = runs / f"only-{folder}"
        alone.mkdir()
        shutil.move(runs / folder, alone / folder)
        found = columns_of_records(alone)
        assert (found["i"], found["train/half"]) == (list(range(25)), [i / 2 for i in range(25)]), folder


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_a_resumed_run_has_the_config_it_is_resumed_with(kind: str, own_host: Path, runs: Path) -> None:
    for config in ({"lr": 0.1, "seed": 1}, {"lr": 0.3}):
        with asynctrack.init(
            "p", id="run", dir=runs, backends=[kind], worker="thread", resume="allow", config=config
        ) as run:
            if "seed" in config:
                run.config["lr"] = 0.2
            run.summary[str(config["lr"])] = math.nan
    if kind == "yaml":
        found = yaml.safe_load((run.path / "config.yaml").read_text())
        summary = yaml.safe_load((run.path / "summary.yaml").read_text())
    else:
        content = json.loads((run.path / "metrics.json").read_text())
        found, summary = content["config"], content["run_summary"]
    assert found == {"lr": 0.3, "seed": 1}
    assert [*summary] == ["0.1", "0.3"]


# Killed at any moment, with what it is given cut in another way the next time


def some_data(dice: random.Random, number: int) -> Row:
    keys = ["loss", "train/loss", "train/acc", "val/acc", "config", "_step", "odd/../x", f"new/{number % 7}", "a/b/c"]
    values = [number, number / 3, True, "text", "", 'a "b",\r\nc', math.inf, None, [1, number], 2**70, "größer"]
    return {key: dice.choice(values) for key in dice.sample(keys, dice.randint(0, 4))} | {"n": number}


class Given:
    """A sink that is dropped now and then, opened again with the state it had saved, and given again what came since."""

    def __init__(self, backend: Backend, run: Path, dice: random.Random) -> None:
        self.dice = dice
        self.records = [
            Record(number, dice.randint(0, 9), 1_700_000_000_000_000_000 + number * 1000, some_data(dice, number), 1)
            for number in range(dice.randint(20, 150))
        ]
        self._backend = backend
        self._context = Context(run_id="run", name="run", project="p", directory=run, config={})

    async def deliver(self) -> None:
        state, saved = None, 0
        for _ in range(self.dice.randint(2, 8)):
            saved, state = await self._sit(saved, state, most=self.dice.randint(1, 8))
        await self._sit(saved, state, most=None)

    async def _sit(self, saved: int, state: Row | None, most: int | None) -> tuple[int, Row | None]:
        """Give a fresh sink what it has not got as far as it said; drop it after so many calls, or close it in the end."""
        sink = await call(self._backend.open, msgspec.structs.replace(self._context, state=state))
        at, calls = saved, 0
        while most is None or calls < most:
            calls += 1
            count = self.dice.randint(1, 12 if most else 200)
            if at < len(self.records):
                await call(sink.write, Batch(self.records[at : at + count], []))
                at = min(len(self.records), at + count)
            if at == len(self.records) or self.dice.random() < 0.4:
                said = json.loads(json.dumps(await call(sink.checkpoint)))
                if self.dice.random() < 0.6:  # else the cursor was not saved
                    saved, state = at, said
            if at == len(self.records) and (most is None or self.dice.random() < 0.3):
                await call(sink.close, "stopped" if most else "finished")
                break
        return saved, state

    def expected(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        for record in self.records:
            for key, value in flatten(record.data):
                columns.setdefault(key, []).append(value)
        return columns


async def call(method: Callable[..., Any], *arguments: Any) -> Any:
    found = method(*arguments)
    return await found if inspect.isawaitable(found) else found


def text_as_csv_has_it(value: Any) -> Any:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list) else value


def as_logged(value: Any) -> Any:
    """What a value of a Parquet column that became one of texts stands for; a number may have been in one of numbers before."""
    try:
        return from_json(json.loads(value)) if isinstance(value, str) else value
    except ValueError:
        return from_json(value)


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what is killed leaves files open
@pytest.mark.parametrize("seed", range(N_SEEDS))
@pytest.mark.parametrize("backend", [JSON(), CSV(), Parquet()], ids=lambda backend: type(backend).__name__)
def test_killed_at_any_moment_and_cut_anew_each_value_is_there_once(
    backend: Backend, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    monkeypatch.setattr(json_columns, "_SMALL_BYTES", dice.choice([1, 1 << 20]))
    monkeypatch.setattr(json_columns, "_GROWTH", dice.choice([0, 4]))  # rows may have to wait until the end
    given = Given(backend, tmp_path, dice)
    anyio.run(given.deliver)
    expected = given.expected()
    if isinstance(backend, JSON):
        kept = {free_name(key, ("config", "run_summary")): values for key, values in expected.items()}
        assert columns_of_json(tmp_path) == kept
        return
    found = columns_of_records(tmp_path)
    expected = {key: [value for value in values if value is not None] for key, values in expected.items()}
    expected = {key: values for key, values in expected.items() if values}
    assert {key: len(values) for key, values in found.items()} == {key: len(v) for key, v in expected.items()}
    if isinstance(backend, CSV):
        assert found == {key: [*map(text_as_csv_has_it, values)] for key, values in expected.items()}
    else:
        assert {key: [*map(as_logged, v)] for key, v in found.items()} == {
            key: [*map(as_logged, v)] for key, v in expected.items()
        }


@pytest.mark.system
def test_images_are_references(own_host: Path, runs: Path) -> None:
    with asynctrack.init("p", dir=runs, backends=["json", "csv", "parquet"], worker="thread") as run:
        run.log({"image": asynctrack.Image(np.zeros((4, 5, 3), "u1")), "loss": 0.5})
    (image,) = columns_of_json(run.path)["image"]
    assert (run.path / image["path"]).read_bytes()[1:4] == b"PNG"
    assert [json.loads(text) for text in columns_of_records(run.path)["image"]] == [image]  # of Parquet
    shutil.rmtree(run.path / "parquet")
    assert [json.loads(text) for text in columns_of_records(run.path)["image"]] == [image]  # of CSV


# Names


@pytest.mark.parametrize("backend", [JSON(), Parquet()], ids=lambda backend: type(backend).__name__)
def test_any_name_is_found_again(backend: Backend, tmp_path: Path) -> None:
    keys = [
        "",
        "/",
        "a/b",
        "..",
        "nul\0",
        'q"uote',
        "new\nline",
        "ö",
        "x" * 5000,
        "_step",
        "_number",
        "config",
        "A",
        "a",
        "1",
    ]
    with JournaledRun(tmp_path / "p" / "run") as run:
        run.log({key: number for number, key in enumerate(keys)})
        run.end()
        deliver(run.path, backend)
    found = columns_of_json(run.path) if isinstance(backend, JSON) else columns_of_records(run.path)
    assert {put_back(key, ("config", "run_summary")): values for key, values in found.items()} == {
        key: [number] for number, key in enumerate(keys)
    }


@pytest.mark.parametrize(
    "name", ["config", "_config", "__config", "run_summary", "config/lr", "my_config", "_", "", "_step", "step"]
)
def test_names_are_kept_apart_and_put_back(name: str) -> None:
    reserved = ("config", "run_summary", "_step")
    apart = free_name(name, reserved)
    assert apart not in reserved
    assert put_back(apart, reserved) == name
    assert (apart == name) == (name.lstrip("_") not in ("config", "run_summary", "step") or name == "step")
