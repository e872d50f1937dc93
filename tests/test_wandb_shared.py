"""`asynctrack.wandb` in several processes: `mode="shared"` by W&B's names is one run, and what was spawned logs to the run of its parent."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import ended, manifest, outcome, records, run_child, start, wait_until

import asynctrack
import asynctrack.wandb

pytestmark = pytest.mark.system

# One process of a job, as W&B's page on distributed training has it.
PROCESS = """
import json, sys
import asynctrack.wandb as wandb
directory, run_id, label, primary = sys.argv[1:5]
settings = wandb.Settings(mode="shared", x_label=label, x_primary=primary == "True", x_update_finish_state=primary == "True")
run = wandb.init(project="job", id=run_id or None, dir=directory, config={"by": "all"}, settings=settings)
for step in range(20):
    wandb.log({label: step})
told = [run.id, run.settings.mode, run.settings.x_label, run.settings.x_primary]
if sys.argv[5:] == ["raise"]:
    raise FloatingPointError("in the primary")
print("open", flush=True)
sys.stdin.readline()
wandb.finish()
print(json.dumps(told))
"""


def process(runs: Path, label: str, *, primary: bool, run_id: str = "one", raises: bool = False, **more: str) -> Any:
    return start(PROCESS, runs, run_id, label, primary, *(["raise"] if raises else []), **more)


def finish(child: Any) -> Any:
    """Let a process go on to its end; what it says, and no warning."""
    out, err = child.communicate("\n")
    assert child.returncode == 0 and not err, err
    return json.loads(out.splitlines()[-1])


def test_processes_in_shared_mode_write_to_one_run(runs: Path) -> None:
    children = {label: process(runs, label, primary=label == "trainer") for label in ("trainer", "rank1", "rank2")}
    for child in children.values():
        assert child.stdout.readline() == "open\n"
    told = {label: finish(child) for label, child in children.items()}
    assert told == {label: ["one", "shared", label, label == "trainer"] for label in children}
    (run,) = (runs / "job").iterdir()
    wait_until(lambda: ended(run), "the run has ended")
    found = records(run)
    assert Counter(record.writer for record in found) == dict.fromkeys(children, 20)
    for label in children:
        assert [record.data[label] for record in found if label in record.data] == list(range(20))
    assert manifest(run)["status"] == "finished" and manifest(run)["config"] == {"by": "all"}
    assert sorted(writer.writer for writer in asynctrack.open_run(run).writers) == sorted(children)


def test_run_ends_as_its_primary_does_whoever_has_opened_it(runs: Path) -> None:
    second = process(runs, "second", primary=False)
    run = runs / "job" / "one"
    wait_until(lambda: (run / "run.json").exists(), "the second has opened the run")
    primary = process(runs, "first", primary=True, raises=True)
    _, err = primary.communicate()
    assert "FloatingPointError" in err
    finish(second)
    wait_until(lambda: ended(run), "the run has ended")
    told = manifest(run)
    assert (told["status"], told["error"]) == ("failed", "FloatingPointError: in the primary")
    assert Counter(record.writer for record in records(run)) == {"first": 20, "second": 20}


def test_shared_mode_comes_from_the_environment(runs: Path) -> None:
    script = """
import asynctrack.wandb as wandb
wandb.init(project="job")
wandb.log({"loss": 0.5})
"""
    given = {"WANDB_MODE": "shared", "WANDB_RUN_ID": "one", "WANDB_DIR": str(runs)}
    labels = {"a": "true", "b": "false"}
    children = [start(script, **given, WANDB__LABEL=label, WANDB__PRIMARY=labels[label]) for label in labels]
    assert [outcome(child) for child in children] == [None, None]
    (run,) = (runs / "job").iterdir()
    wait_until(lambda: ended(run), "the run has ended")
    assert sorted(str(record.writer) for record in records(run)) == ["a", "b"]


def test_shared_run_without_an_id_has_a_fresh_one_which_others_join(runs: Path) -> None:
    primary = process(runs, "first", primary=True, run_id="", RANK="0", TORCHELASTIC_RUN_ID="job7")
    wait_until(lambda: list(runs.glob("job/*/run.json")), "the first has opened the run")
    (run,) = (runs / "job").iterdir()
    other = process(runs, "/an odd label/", primary=False, run_id=run.name)
    assert finish(other)[0] == finish(primary)[0] == run.name != "job7"
    wait_until(lambda: ended(run), "the run has ended")
    assert len(records(run)) == 40 and len(list((runs / "job").iterdir())) == 1


def test_label_outside_of_shared_mode_is_ignored_and_said(runs: Path) -> None:
    script = """
import sys
import asynctrack.wandb as wandb
wandb.init(project="job", dir=sys.argv[1], id="one", settings=wandb.Settings(x_label="rank3")).finish()
"""
    child = start(script, runs)
    assert "Settings(x_label=...) is not supported, and ignored" in child.communicate()[1]
    assert records(runs / "job" / "one") == []


SPAWNING = """
import json, multiprocessing, subprocess, sys
import asynctrack.wandb as wandb

def train(how, directory, told, run):
    if how == "pickle":
        run.log({"child": 1})
        found = [run.id, run is wandb.run]
    elif how == "log":
        wandb.log({"child": 1})
        found = [wandb.run is not None and wandb.run.id]
    elif how == "run":
        found = [wandb.run.id, dict(wandb.config)]
        wandb.run.log({"child": 1})
    else:
        found = [wandb.run.id]
        wandb.init(project="demo", dir=directory, id="own")
        wandb.log({"child": 1})
        found.append(wandb.run.id)
    wandb.finish()
    told.put([*found, wandb.run is None])

if __name__ == "__main__":
    directory, how, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
    wandb.init(project="demo", dir=directory, id="one", config={"lr": 0.1})
    wandb.log({"parent": 0})
    told = context.Queue()
    child = context.Process(target=train, args=(how, directory, told, wandb.run if how == "pickle" else None))
    child.start()
    found = told.get()
    child.join()
    wandb.log({"parent": 1})
    wandb.finish()
    print(json.dumps(found))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("pickle", ["one", True, True]),
        ("log", ["one", True]),
        ("run", ["one", {"lr": 0.1}, True]),
        ("init", ["one", "own", True]),
    ],
)
def test_spawned_child_logs_to_the_run_of_its_parent(
    how: str, told: list[Any], method: str, runs: Path, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"  # a spawned child imports it
    script.write_text(SPAWNING)
    assert told == _run_file(script, runs, how, method)
    own = "own" if how == "init" else "one"
    assert [record.data for record in records(runs / "demo" / own) if "child" in record.data] == [{"child": 1}]
    assert [record.data for record in records(runs / "demo" / "one") if "parent" in record.data] == [
        {"parent": 0},
        {"parent": 1},
    ]
    assert manifest(runs / "demo" / "one")["status"] == "finished"


FOLLOWING = """
import sys
import asynctrack.wandb as wandb

for line in sys.stdin:
    wandb.log({"n": int(line)})
    print(wandb.run.id, flush=True)
"""


def test_process_follows_the_one_from_which_it_descends_from_run_to_run(runs: Path) -> None:
    child = start(FOLLOWING)
    assert child.stdin is not None and child.stdout is not None
    for number in range(3):
        with asynctrack.wandb.init(project="demo", dir=runs, id=f"run{number}"):
            print(number, file=child.stdin, flush=True)
            assert child.stdout.readline() == f"run{number}\n"
    assert outcome(child) is None
    for number in range(3):
        path = runs / "demo" / f"run{number}"
        wait_until(lambda path=path: ended(path), "the run has ended")  # type: ignore[misc]
        assert [record.data for record in records(path)] == [{"n": number}]


def _run_file(script: Path, *arguments: object) -> Any:
    return run_child(
        "import json, subprocess, sys; done = subprocess.run([sys.executable, *sys.argv[1:]], capture_output=True, text=True);"
        "assert not done.returncode and not done.stderr, done.stderr; print(done.stdout.strip())",
        script,
        *arguments,
    )


def test_program_of_its_own_has_no_run_until_it_logs(runs: Path) -> None:
    program = """
import json
import asynctrack.wandb as wandb
before = wandb.run is None
wandb.log({"child": 1})
print(json.dumps([before, wandb.run.id]))
"""
    parent = """
import subprocess, sys
import asynctrack.wandb as wandb
wandb.init(project="demo", dir=sys.argv[1], id="one")
print(subprocess.run([sys.executable, "-c", sys.argv[2]], capture_output=True, text=True, check=True).stdout.strip())
wandb.finish()
"""
    assert run_child(parent, runs, program) == [True, "one"]
    assert [record.data for record in records(runs / "demo" / "one")] == [{"child": 1}]


def test_log_before_init_is_refused_as_by_wandb() -> None:
    script = """
import json
import asynctrack.wandb as wandb
try:
    wandb.log({"loss": 1})
except wandb.Error as error:
    print(json.dumps([wandb.run is None, str(error)]))
"""
    for mode in ("online", "disabled"):
        has_none, said = run_child(script, ASYNCTRACK_MODE=mode)
        assert has_none and "log() needs an open run, and there is none; call wandb.init() first" in said
