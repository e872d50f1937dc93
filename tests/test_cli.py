"""The command line on real runs: what all commands share, finding runs, and `ls`."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_support import COMMAND, Logger, answer, asynctrack_, line_of, make_runs, running, said_here
from support import INSTALLED, kill_the_worker, lines, records, wait_until, workers

import asynctrack
from asynctrack import cli
from asynctrack.errors import AmbiguousRun, NoSuchRun
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import RECORD
from asynctrack.reading import catalog


@pytest.fixture(scope="module")
def kept(shared_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that have ended; see `make_runs`."""
    return make_runs(tmp_path_factory.mktemp("kept") / "runs")


@pytest.fixture
def logger(own_host: Path, runs: Path) -> Iterator[Logger]:
    logger = Logger(runs)
    yield logger
    logger.end()


# What all commands share


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys, asynctrack.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: print(end.code, [m for m in sys.modules if m.startswith('asynctrack.cli.commands.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    for name in cli.COMMANDS:
        assert re.search(rf"^    {name} +\w", done.stdout, re.M), name
    assert "exit codes:" in done.stdout
    assert "124  timed out" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_says_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(f"asynctrack.cli.commands.{name}").main
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: asynctrack {name}")
    assert "--json" in said


@pytest.mark.system
def test_ls_imports_no_other_command_and_no_event_loop(kept: Path) -> None:
    script = (
        "import sys, asynctrack.cli as cli\n"
        "assert cli.main(['ls', sys.argv[1]]) == 0\n"
        "print([m for m in ('asyncio', 'anyio', 'rich', 'asynctrack.cli.commands.demo', 'asynctrack.cli.commands.show') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(kept)], capture_output=True, text=True, timeout=50)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "required: COMMAND"),
        (["nope"], 2, "invalid choice: 'nope'"),
        (["ls", "--nope"], 2, "unrecognized arguments: --nope"),
        (["ls", "nowhere"], 2, "there is no directory nowhere"),
        (["ls", "-n", "0"], 2, "expected a whole number from 1 on, got '0'"),
        (["ls", "--status", "odd"], 2, "expected some of running, finished"),
        (["show", "nope"], 2, "asynctrack: 'nope' is neither the directory of a run nor the beginning of an id"),
        (["wait", "latest", "--timeout-s", "soon"], 2, "expected a number of seconds from 0 on, got 'soon'"),
        (["tail", "latest", "--keys", ","], 2, "expected names of metrics"),
    ],
)
def test_what_is_asked_wrongly_is_told_without_a_traceback(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(INSTALLED)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_goes_is_no_error(kept: Path) -> None:
    python = f"{sys.executable} -m asynctrack export --format jsonl {kept}/p/finished-1"
    done = subprocess.run(["/bin/sh", "-c", f"{python} | head -n 1"], capture_output=True, text=True, timeout=50)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.system
def test_ctrl_c_ends_quietly(logger: Logger) -> None:
    logger.log(0, 3)
    with running("tail", "-f", logger.run) as follower:
        assert "i=0" in line_of(follower)
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=50)
        assert (follower.returncode, err) == (130, "")


# Finding a run


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("latest", "q/crashed"),
        ("failed", "p/failed"),
        ("crash", "q/crashed"),
        ("p/fa", "p/failed"),
        ("finished-1", "p/finished-1"),
        ("PATH/p/finished-2", "p/finished-2"),
        ("PATH/p/finished-2/", "p/finished-2"),
    ],
)
def test_run_is_found(kept: Path, wanted: str, found: str) -> None:
    assert catalog.find(wanted.replace("PATH", str(kept)), kept) == kept / found


def test_run_that_is_not_there_is_told_with_those_like_it(kept: Path) -> None:
    with pytest.raises(NoSuchRun, match="did you mean p/finished-2 or p/finished-1"):
        catalog.find("finised-2", kept)
    for wanted in ("", "p", "p/", "..", str(kept), str(kept / "p"), "finished-3"):
        with pytest.raises((NoSuchRun, AmbiguousRun)):
            catalog.find(wanted, kept)
    with pytest.raises(NoSuchRun, match="there is no run in"):
        catalog.find("latest", kept / "nowhere")


def test_several_runs_that_may_be_meant_are_listed(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(AmbiguousRun, match=r"fits 2 runs; give more of the id: p/finished-2, p/finished-1$"):
        catalog.find("finished", kept)
    runs = tmp_path / "runs"
    for project in ("a", "b"):
        shutil.copytree(kept / "p" / "failed", runs / project / "same")
    with pytest.raises(AmbiguousRun, match="a/same"):
        catalog.find("same", runs)
    assert catalog.find("b/same", runs) == runs / "b" / "same"


def test_runs_are_found_in_a_project_and_as_themselves_but_not_hidden_ones(kept: Path, tmp_path: Path) -> None:
    names = ["p/failed", "p/finished-2", "p/finished-1"]
    assert [catalog.name_of(run) for run in catalog.newest_first(catalog.runs_under(kept / "p"))] == names
    assert catalog.runs_under(kept / "q" / "crashed") == [kept / "q" / "crashed"]
    shutil.copytree(kept / "q", tmp_path / ".q")
    (tmp_path / "file").touch()
    assert catalog.runs_under(tmp_path) == []


# ls


@pytest.mark.system
def test_ls_tells_of_every_run(kept: Path) -> None:
    listed = answer("ls", kept)
    assert [(run["project"], run["id"], run["status"]) for run in listed] == [
        ("q", "crashed", "crashed"),
        ("p", "failed", "failed"),
        ("p", "finished-2", "finished"),
        ("p", "finished-1", "finished"),
    ]
    crashed, failed, finished, _ = listed
    assert (crashed["records"], crashed["step"], crashed["last"]) == (3, 2, {"i": 2})
    assert (failed["records"], failed["step"], failed["last"]) == (1, 7, {"loss": "NaN"})
    assert (finished["records"], finished["step"], finished["name"]) == (2020, 1999, "näme-2")
    assert finished["last"] == {"loss": 1 / 2000, "train/acc": 1999 / 2000}
    assert finished["records_per_s"] > 0
    files = (path for path in (kept / "p" / "finished-2").rglob("*") if path.is_file())
    assert finished["bytes"] == sum(path.stat().st_size for path in files)


@pytest.mark.system
@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--status", "finished,failed"], ["failed", "finished-2", "finished-1"]),
        (["--project", "q"], ["crashed"]),
        (["-n", "2"], ["crashed", "failed"]),
        (["--status", "finished", "-n", "1"], ["finished-2"]),
        (["--status", "lost"], []),
    ],
)
def test_ls_chooses(kept: Path, options: list[str], ids: list[str]) -> None:
    assert [run["id"] for run in answer("ls", kept, *options)] == ids


def test_ls_is_a_table_that_tools_can_read(kept: Path) -> None:
    title, *rows = asynctrack_("ls", kept, "--keys", "loss").stdout.splitlines()
    names = ["run", "name", "status", "age", "lr", "model/depth", "bad", "loss", "records", "step", "size", "rate"]
    assert title.split() == names
    cells = dict(zip(names, rows[2].replace(" kB", "kB").replace(" s ", "s ").split(), strict=True))
    assert (cells["run"], cells["name"], cells["status"], cells["loss"]) == (
        "p/finished-2",
        "näme-2",
        "finished",
        "0.0005",
    )
    status = title.index("status")
    assert [row[status:].split()[0] for row in rows[:4]] == ["crashed", "failed", "finished", "finished"]
    assert rows[4] == ""
    assert re.fullmatch(r"4 runs, \d+ kB", rows[5])


def test_ls_of_nothing_says_so(tmp_path: Path) -> None:
    assert said_here("ls", tmp_path).stdout == f"no runs in {tmp_path}\n"
    assert answer("ls", tmp_path) == []


@pytest.mark.system
def test_live_run_is_running_and_a_lost_one_is_lost(logger: Logger, own_host: Path, runs: Path) -> None:
    logger.log(0, 5)
    wait_until((logger.run / "run.json").exists, "the worker has told of the run")
    (live,) = answer("ls", runs)
    assert (live["status"], live["records"], live["last"]) == ("running", 5, {"i": 4, "half": 2.0})
    kill_the_worker(own_host)
    logger.end("die")
    (lost,) = answer("ls", runs)
    assert (lost["status"], lost["records"]) == ("lost", 5)
    assert "asynctrack sync" in said_here("ls", runs).stdout
    for word, code in (("tail", 1), ("wait", 1)):
        done = asynctrack_(word, logger.run, *(["-f"] if word == "tail" else []))
        assert done.returncode == code
        assert "the process and the worker of" in done.stderr
    content = json.loads((logger.run / "run.json").read_text())
    content["environment"]["host"] = "another"
    (logger.run / "run.json").write_text(json.dumps(content))
    (elsewhere,) = answer("ls", runs)
    assert elsewhere["status"] == "elsewhere"
    asynctrack.init("live", id="run", dir=runs, resume="must").finish()
    assert answer("ls", runs)[0]["status"] == "finished"


def test_looking_at_a_run_of_this_process_leaves_it_its_locks(
    own_host: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with asynctrack.init("p", dir=runs) as run:
        run.log({"i": 0})
        run.flush("journaled")
        assert cli.main(["ls", str(runs), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["status"] == "running"
        assert cli.main(["show", str(run.path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["callers"] == [os.getpid()]
        assert answer("show", run.path)["callers"] == [os.getpid()]


@pytest.mark.system
def test_counting_from_a_cursor_is_exact(own_host: Path, runs: Path) -> None:
    """With a journal too long to be read whole: of two sessions and a forked child, and with the cursor anywhere."""
    for session in range(2):
        with asynctrack.init("p", id="run", dir=runs, resume="allow") as run:
            for i in range(3000):
                run.log({"i": i, "text": "x" * 40})
            if not session and (child := os.fork()) == 0:
                run.log({"child": 1})
                os._exit(0)
        if not session:
            os.waitpid(child, 0)
            wait_until(lambda: len(lines(run.path)) == 3001, "the child's record is there")
            wait_until(lambda: not workers(own_host), "the worker has left")
    count = len(records(run.path))
    assert answer("ls", runs)[0]["records"] == count == 6001
    cursor = run.path / "cursors" / "jsonl.json"
    content = json.loads(cursor.read_text())
    cursor.unlink()
    assert answer("ls", runs)[0]["records"] == count
    before, ends = 0, {}
    with closing(Reader(run.path / "journal")) as reader:
        for batch in reader:
            numbered = [frame.end for frame in batch.frames() if frame.kind == RECORD]
            if len(numbered) > 10:
                break
            before, ends = before + len(numbered), dict(reader.ends)
    content |= {"position": [batch.segment, batch.offset, numbered[9]], "ends": ends, "delivered": before + 10}
    cursor.write_text(json.dumps(content))
    assert answer("ls", runs)[0]["records"] == count


HARM = {
    "run.json is garbage": lambda run: (run / "run.json").write_text("{"),
    "run.json is another's": lambda run: (run / "run.json").write_text("[1, 2]"),
    "run.json is empty": lambda run: (run / "run.json").write_bytes(b""),
    "no journal": lambda run: shutil.rmtree(run / "journal"),
    "no segment": lambda run: next((run / "journal").iterdir()).rename(run / "journal" / "000002.atj"),
    "cut": lambda run: os.truncate(next((run / "journal").iterdir()), 300),
    "empty": lambda run: os.truncate(next((run / "journal").iterdir()), 0),
}


@pytest.mark.system
@pytest.mark.parametrize("harm", HARM)
def test_damaged_run_is_listed_as_such(kept: Path, tmp_path: Path, harm: str) -> None:
    run = shutil.copytree(kept / "q" / "crashed", tmp_path / "q" / "crashed")
    HARM[harm](run)
    (listed,) = answer("ls", tmp_path)
    assert (listed["id"], listed["status"]) == ("crashed", "damaged")
    assert listed["problem"]
    assert "damaged" in said_here("ls", tmp_path).stdout


def test_a_newer_format_is_said_to_be_one(kept: Path, tmp_path: Path) -> None:
    run = shutil.copytree(kept / "q" / "crashed", tmp_path / "q" / "crashed")
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "version": 99}))
    (listed,) = answer("ls", tmp_path)
    assert listed["status"] == "unreadable"
    assert "install a newer asynctrack" in listed["problem"]


@pytest.mark.system
def test_no_flipped_byte_makes_a_command_fail(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(kept / "p" / "failed", tmp_path / "runs" / "p" / "failed")
    files = [path for path in run.rglob("*") if path.is_file() and path.stat().st_size]
    choose = random.Random(1)
    for _ in range(80):
        file = choose.choice(files)
        content = file.read_bytes()
        at = choose.randrange(len(content))
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << choose.randrange(8)]) + content[at + 1 :])
        for command in ("ls", "show", "tail", "verify", "export"):
            where = str(run.parent if command == "ls" else run)
            options = ["--format", "jsonl"] if command == "export" else []
            assert cli.main([command, where, *options]) in (0, 1), (command, file, at)
        file.write_bytes(content)
        capsys.readouterr()
