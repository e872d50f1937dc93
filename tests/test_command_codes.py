"""Every command ends with 2 where it was asked wrongly, with a word on stderr, nothing on stdout, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import said_here

from asynctrack import cli

WRONG: dict[str, list[str]] = {
    "demo": ["--seconds", "soon"],
    "ls": ["nowhere"],
    "query": ["selec"],
    "show": ["nope"],
    "compare": ["nope", "neither"],
    "best": ["max("],
    "tail": ["nope"],
    "wait": ["nope"],
    "sync": ["nope"],
    "collect": ["nowhere"],
    "serve": ["--listen", "nope"],
    "ui": ["nope"],
    "verify": ["nope"],
    "export": ["nope", "--format", "csv"],
    "rm": ["nope"],
    "cache": ["--nope"],
    "backends": ["--nope"],
    "workers": ["--end", "nope"],
    "doctor": ["--dir", __file__],
}


def test_every_command_is_asked() -> None:
    assert cli.COMMANDS.keys() <= WRONG.keys()


@pytest.mark.parametrize("name", cli.COMMANDS)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_wrong_usage_ends_with_2(
    name: str, form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_host: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("asynctrack_runs").mkdir()
    done = said_here(name, *WRONG[name], *form)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() and "Traceback" not in done.stderr
