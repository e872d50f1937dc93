"""What a run that somebody else has made says to a terminal: its names, keys, values, messages and paths are shown, and none is obeyed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_support import asynctrack_, on_terminal, plain, said_here
from support import wait_until

from asynctrack import open_run
from asynctrack._system import messages
from asynctrack._system.printable import printable
from asynctrack.backends.caller_display import Display, Stream, open_display
from asynctrack.backends.console import Console
from asynctrack.errors import AmbiguousRun, AsynctrackError, NotARun
from asynctrack.journal import manifest
from asynctrack.journal.cursor import Cursor, cursor_path
from asynctrack.testing import JournaledRun, deliver

pytestmark = pytest.mark.usefixtures("own_state", "own_host")

# The clipboard, the title, colours, the cursor, in one byte and in two; a line that is written from right to left.
EVIL = "a\x1b]52;c;ZXZpbA==\x07b\x1b]0;evil\x1b\\c\x9b2Jd\x1b[31me\rf\u202eg\x08h"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A run in whose every text there are escapes; its directory's name, too."""
    path = tmp_path / "runs" / "p\x1b]0;evil\x07" / "r\x1b[31m\x9bx"
    with JournaledRun(path, config={EVIL: EVIL}, backends={"jsonl": Console()}) as run:
        for step in range(3):
            run.log({EVIL: step, "text": EVIL, f"{EVIL}/{EVIL}": 0.5, "list": [EVIL], "loss": 0.1}, step)
        run.update("summary", {EVIL: EVIL})
        run.end("failed")
    found = open_run(path).manifest()
    found.name, found.project, found.error = EVIL, EVIL, EVIL
    found.labels = {"tags": [EVIL, EVIL], "group": EVIL, "job_type": EVIL, "entity": EVIL, "notes": f"{EVIL}\n{EVIL}"}
    found.failed_children = [{"pid": EVIL, "error": EVIL}]
    found.environment = {"host": EVIL, "python": EVIL, "pid": EVIL, "command": [EVIL]}
    manifest.save(path, found)
    cursor_path(path, "jsonl").parent.mkdir()
    cursor_path(path, "jsonl").write_bytes(msgspec.json.encode(Cursor(last_error=EVIL, retries=3, skipped={EVIL: 1})))
    return path


COMMANDS: dict[str, list[Any]] = {
    "ls": ["ls", "DIR"],
    "ls --json": ["ls", "DIR", "--json"],
    "show": ["show", "RUN"],
    "show --json": ["show", "RUN", "--json"],
    "ls by its name": [
        "ls",
        "DIR",
        "--where",
        f"name == '{EVIL}'",
        "--columns",
        f"`{EVIL}`,tags,notes,config.`{EVIL}`",
    ],
    "ls of groups": ["ls", "DIR", "--group", "group"],
    "ls of no such name": ["ls", "DIR", "--sort", f"`{EVIL}x`"],
    "no condition": ["ls", "DIR", "--where", f"{EVIL} >"],
    "best of its metric": ["best", f"min(`{EVIL}`)", "DIR"],
    "best of no such metric": ["best", f"`{EVIL}x`", "DIR"],
    "query": ["query", "select * from runs", "--dir", "DIR"],
    "query --json": ["query", "select * from metrics", "--dir", "DIR", "--json"],
    "a wrong query": ["query", f"select '{EVIL}' from", "--dir", "DIR"],
    "its name": ["show", EVIL, "--dir", "DIR"],
    "a name like its": ["show", EVIL[:-1], "--dir", "DIR"],
    "rm that would": ["rm", "--where", f"name == '{EVIL}'", "--dir", "DIR", "--dry-run"],
    "export of several": ["export", "RUN", "RUN", "--format", "csv", "--writer", EVIL],
    "export to a file": ["export", "RUN", "--format", "csv", "--output", "FILE", "--json"],
    "tail": ["tail", "RUN"],
    "tail --json": ["tail", "RUN", "--json"],
    "wait": ["wait", "RUN", "--until", f"'{EVIL}' > 9"],
    "wait for the end": ["wait", "RUN"],
    "verify": ["verify", "RUN"],
    "verify --json": ["verify", "RUN", "--json"],
    "sync": ["sync", "RUN", "--patience-s", "0.2"],
    "sync --json": ["sync", "RUN", "--patience-s", "0.2", "--json"],
    "no such run": ["show", EVIL],
    "no such option": ["show", "RUN", f"--{EVIL}"],
    "a wrong setting": ["sync", "RUN", "--to", "console", f"{EVIL}={EVIL}"],
    "no such backend": ["sync", "RUN", "--to", EVIL],
    "no such directory": ["ls", EVIL],
    "no such file": ["export", "RUN", "--format", "csv", "--output", f"{EVIL}/x"],
    "workers": ["workers", "--end", EVIL],
    "best": ["best", "min(loss)", "DIR"],
    "best --json": ["best", "min(loss)", "DIR", "--json"],
    "best of a wrong metric": ["best", f"max({EVIL})", "DIR"],
    "a wrong condition": ["best", "min(loss)", "DIR", "--where", f"'{EVIL}' < 1"],
    "a name that no run has": ["best", "min(loss)", "DIR", "--where", f"`{EVIL}x` < 1"],
    "rm": ["rm", "RUN"],
    "rm --dry-run": ["rm", "RUN", "--dry-run"],
    "rm --where": ["rm", "--where", "size > 1", "--dir", "DIR"],
    "rm --yes": ["rm", "RUN", "--yes"],
}


@pytest.mark.system
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_says_what_a_terminal_obeys(name: str, hostile: Path) -> None:
    words = {"RUN": hostile, "DIR": hostile.parent.parent, "FILE": hostile.with_name(f"{EVIL}.csv")}
    done = said_here(*(words.get(word, word) for word in COMMANDS[name]))
    said = done.stdout + done.stderr
    assert said.strip() and not CONTROL.search(said), said


@pytest.mark.parametrize(
    "name",
    [
        "show",
        "show --json",
        "tail",
        "ls",
        "ls of columns",
        "ls --json",
        "best",
        "export jsonl",
        "export csv",
        "export of several",
        "sync --to console",
    ],
)
def test_a_terminal_gets_styles_of_ours_and_nothing_else(name: str, hostile: Path) -> None:
    arguments: dict[str, list[Any]] = {
        "show --json": ["show", hostile, "--json"],
        "ls": ["ls", hostile.parent.parent],
        "ls of columns": ["ls", hostile.parent.parent, "--columns", f"tags,notes,name,`{EVIL}`"],
        "ls --json": ["ls", hostile.parent.parent, "--json"],
        "best": ["best", f"min(`{EVIL}`)", hostile.parent.parent],
        "export of several": ["export", hostile, hostile, "--format", "jsonl"],
        "export jsonl": ["export", hostile, "--format", "jsonl"],
        "export csv": ["export", hostile, "--format", "csv"],
        "sync --to console": ["sync", hostile, "--to", "console", "every_s=0"],
    }
    _, said = on_terminal(100, *arguments.get(name, [name, hostile]))
    text = re.sub(r"\r\x1b\[K", "", plain(said))
    assert "evil" in text and not CONTROL.search(text.replace("\r", "")), text


def test_a_file_gets_the_values_as_they_were_logged(hostile: Path) -> None:
    lines = asynctrack_("export", hostile, "--format", "jsonl").stdout.splitlines()
    assert json.loads(lines[0])["text"] == EVIL


@pytest.mark.parametrize("style", ["lines", "print"])
def test_a_console_shows_a_runs_names_without_obeying_them(style: Any, hostile: Path, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+") as out:
        deliver(hostile, Console(style=style, every_s=0, display=open_display(Stream(out))))
        said = (tmp_path / "out").read_text()
    assert "evil" in said and not CONTROL.search(said), said


def test_bars_are_named_without_obeying_anybody(hostile: Path) -> None:
    shown: list[Any] = []

    class Kept(Display):
        def show(self, items: list[Any]) -> None:
            shown.extend(items)

    deliver(hostile, Console(style="bars", every_s=0, display=open_display(Kept())))
    assert len(shown) == 3
    assert [text for item in shown for text in item if isinstance(text, str) and CONTROL.search(text)] == []


def test_the_message_of_an_error_obeys_nobody() -> None:
    errors = [NotARun(EVIL), AmbiguousRun(EVIL, [EVIL]), AsynctrackError(EVIL)]
    assert [str(error) for error in errors if CONTROL.search(str(error))] == []
    assert str(AsynctrackError("two\nlines")) == "two\nlines"


def test_a_message_of_ours_obeys_nobody() -> None:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        messages.show(f"{EVIL}\nsecond line")
        wait_until(lambda: "second line" in said.getvalue(), "it is said")
    assert "evil" in said.getvalue() and not CONTROL.search(said.getvalue())


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable("näme 損失 🚀 'quoted' back\\slash") == "näme 損失 🚀 'quoted' back\\slash"
    assert printable("a\tb\nc", keep="\n") == "a\\tb\nc"


def test_a_csv_file_for_spreadsheets_has_no_formula(tmp_path: Path) -> None:
    with JournaledRun(tmp_path / "p" / "r") as run:
        run.log(
            {
                "=cmd|' /C calc'!A0": "=1+1",
                "at": "@SUM(A1)",
                "plus": "+1",
                "loss": -0.5,
                "nan": float("-inf"),
                "ok": "a=b",
            }
        )
        run.end()
    rows = list(
        csv.reader(asynctrack_("export", run.path, "--format", "csv", "--for-spreadsheets").stdout.splitlines())
    )
    assert rows[0][2:] == ["'=cmd|' /C calc'!A0", "at", "plus", "loss", "nan", "ok"]
    assert rows[1][2:] == ["'=1+1", "'@SUM(A1)", "'+1", "-0.5", "-Infinity", "a=b"]
    plain_rows = list(csv.reader(asynctrack_("export", run.path, "--format", "csv").stdout.splitlines()))
    assert plain_rows[1][2] == "=1+1"
    assert asynctrack_("export", run.path, "--format", "jsonl", "--for-spreadsheets").returncode == 2
