"""Hydra link: a run has Hydra's output of its job, as a link while it is open and as a copy when it has ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import manifest

import asynctrack
from asynctrack import HydraLink
from asynctrack.backends.registry import execution_of, from_stored, stored
from asynctrack.errors import BackendUnavailable, InvalidSettings
from asynctrack.testing import JournaledRun, deliver

JOB = """
import json, logging, os, sys, hydra, asynctrack

@hydra.main(version_base=None, config_path=None)
def main(config):
    run = asynctrack.init("p", id="r", dir=os.environ["RUNS"], resume="allow", backends=["jsonl", "hydra_link"])
    logging.getLogger("job").warning("what the job logs")
    run.log({"loss": 0.5})
    run.flush("delivered")
    link = run.path / "hydra"
    print(json.dumps([os.readlink(link) if link.is_symlink() else None, str(run.path), run.finish().backends["hydra_link"].behind]))

main()
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What Hydra leaves."""
    folder = tmp_path / "outputs" / "job"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("lr: 0.1\n")
    (folder / "job.log").write_text("a line\n")
    (folder / "latest").symlink_to("job.log")
    return folder


def assert_copied(copy: Path) -> None:
    assert not copy.is_symlink()
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == [
        ".hydra",
        ".hydra/config.yaml",
        "job.log",
        "latest",
    ]
    assert (copy / ".hydra" / "config.yaml").read_text() == "lr: 0.1\n"
    assert (copy / "latest").is_symlink()


def run_job(tmp_path: Path, runs: Path, *overrides: str) -> list[Any]:
    script = tmp_path / "job.py"
    script.write_text(JOB)
    done = subprocess.run(
        [sys.executable, script, *overrides],
        cwd=tmp_path,
        env={**os.environ, "RUNS": str(runs)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.system
def test_a_job_of_hydra_has_its_output_in_the_run(shared_host: Path, runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra", reason="hydra-core is not installed: pip install '.[test]'")
    first, second = tmp_path / "first", tmp_path / "second"
    linked, path, behind = run_job(tmp_path, runs, f"hydra.run.dir={first}", "+lr=0.1")
    assert (linked, behind) == (str(first), 0)
    shutil.move(first, tmp_path / "elsewhere")  # the run stands for itself
    run = Path(path)
    assert "lr: 0.1" in (run / "hydra" / ".hydra" / "config.yaml").read_text()
    assert "what the job logs" in (run / "hydra" / "job.log").read_text()
    assert manifest(run)["backends"]["hydra_link"]["hydra_dir"] == str(first)
    run_job(tmp_path, runs, f"hydra.run.dir={second}", "+lr=0.2")  # goes on with the run
    assert "lr: 0.1" in (run / "hydra" / ".hydra" / "config.yaml").read_text()
    assert "lr: 0.2" in (run / "hydra-2" / ".hydra" / "config.yaml").read_text()


def test_runs_inside_of_hydras_directory_are_not_copied_into_themselves(
    shared_host: Path, tmp_path: Path, output: Path
) -> None:
    run = asynctrack.init("p", dir=output / "asynctrack_runs", backends=[HydraLink(hydra_dir=str(output))])
    run.log({"loss": 0.5})
    stats = run.finish().backends["hydra_link"]
    assert (stats.delivered, stats.skipped, stats.behind) == (0, {"it takes no records": 1}, 0)
    assert_copied(run.path / "hydra")


def test_what_is_too_large_stays_a_link(tmp_path: Path, output: Path) -> None:
    for name, most in {"large": 10, "never": 0}.items():
        with JournaledRun(tmp_path / "runs" / "p" / name) as run:
            run.end()
            deliver(run.path, HydraLink(hydra_dir=str(output), copy_bytes=most))
            assert (run.path / "hydra").readlink() == output


def test_what_is_gone_stays_a_link_and_holds_up_nothing(tmp_path: Path, output: Path) -> None:
    with JournaledRun(tmp_path / "runs" / "p" / "r") as run:
        shutil.rmtree(output)
        run.end()
        assert deliver(run.path, HydraLink(hydra_dir=str(output))).closed
        assert (run.path / "hydra").is_symlink()


def test_a_pipe_is_not_read(tmp_path: Path, output: Path) -> None:
    os.mkfifo(output / "pipe")
    with JournaledRun(tmp_path / "runs" / "p" / "r") as run:
        run.end()
        deliver(run.path, HydraLink(hydra_dir=str(output)))
        assert_copied(run.path / "hydra")


def test_what_cannot_be_copied_stays_a_link(tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: Path, target: Path, **how: Any) -> None:
        target.mkdir()
        raise shutil.Error([(str(source), str(target), "Permission denied")])

    monkeypatch.setattr(shutil, "copytree", copy)  # nothing is forbidden to root
    with JournaledRun(tmp_path / "runs" / "p" / "r") as run:
        run.end()
        assert deliver(run.path, HydraLink(hydra_dir=str(output))).closed
        assert (run.path / "hydra").readlink() == output
        assert not (run.path / ".hydra.new").exists()


def test_a_cursor_from_elsewhere_leads_nowhere(tmp_path: Path, output: Path) -> None:
    victim = tmp_path / "runs" / "p" / "victim"
    with JournaledRun(tmp_path / "runs" / "p" / "r") as run:
        victim.symlink_to(output)
        (run.path / "cursors").mkdir()
        state = {"state": {"names": {"../victim": str(output)}}}
        (run.path / "cursors" / "backend.json").write_text(json.dumps(state))
        run.end()
        deliver(run.path, HydraLink(hydra_dir=str(output)))
    assert victim.is_symlink()
    assert_copied(run.path / "victim")


@pytest.mark.parametrize("killed", ["in the copy", "before the link goes", "before the copy has its name", "after it"])
def test_killed_while_it_copies_it_copies_again(killed: str, tmp_path: Path, output: Path) -> None:
    with JournaledRun(tmp_path / "runs" / "p" / "r") as run:
        run.log({"loss": 0.5})
        run.journal()
        backend = HydraLink(hydra_dir=str(output))
        deliver(run.path, backend)
        unfinished, link = run.path / ".hydra.new", run.path / "hydra"
        assert link.is_symlink()
        shutil.copytree(output, unfinished, symlinks=True)
        if killed == "in the copy":
            (unfinished / "job.log").write_text("half")
            (unfinished / "of an earlier one").write_text("")
        if killed in ("before the copy has its name", "after it"):
            link.unlink()
        if killed == "after it":
            unfinished.rename(link)
        run.end()
        deliver(run.path, backend)
        assert_copied(link)
        assert sorted(path.name for path in run.path.iterdir() if "hydra" in path.name) == ["hydra"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("hydra_dir", 5), ("hydra_dir", ""), ("copy_bytes", -1), ("copy_bytes", 1.5), ("max_records_s", 0)],
)
def test_settings_that_cannot_be_used(field: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=field):
        HydraLink(**{field: value})


def test_outside_of_a_job_it_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="give hydra_dir="):
        asynctrack.init("p", dir=tmp_path, backends=["hydra_link"])
    assert list(tmp_path.iterdir()) == []


def test_where_it_runs_and_what_it_reaches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    backend = HydraLink(hydra_dir=Path("outputs")).prepare()  # type: ignore[arg-type]  # a path is fine, too
    assert backend.external_targets() == [str(tmp_path / "outputs")]
    assert execution_of(backend) == "worker"
    settings = stored(backend, "id", "hydra_link")
    assert from_stored(settings) == backend
    with pytest.raises(BackendUnavailable, match="--trust"):
        from_stored(settings, trusted=False)
