"""What the workflows run is what `.ci/run` runs, and the little that needs the internet."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# It asks servers of others, and it runs containers: so only a workflow runs them.
NEEDS_INTERNET = {".ci/links", ".ci/wheels"}


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def scripts_of_ci_run() -> set[str]:
    return set(re.findall(r'^step .*?"\s(\.ci/\w+)', (ROOT / ".ci" / "run").read_text(), re.M))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_only_scripts_that_ci_run_runs(workflow: Path) -> None:
    run = {step["run"] for step in steps(workflow) if "run" in step}
    assert run
    assert run - scripts_of_ci_run() - NEEDS_INTERNET == set()


def test_each_script_of_ci_run_is_run_by_a_workflow() -> None:
    run = {step.get("run") for workflow in WORKFLOWS for step in steps(workflow)}
    assert len(scripts_of_ci_run()) > 8
    assert scripts_of_ci_run() - run == set()


def test_what_needs_the_internet_is_run_by_a_workflow_and_not_by_ci_run() -> None:
    run = {step.get("run") for workflow in WORKFLOWS for step in steps(workflow)}
    assert run >= NEEDS_INTERNET
    assert scripts_of_ci_run() & NEEDS_INTERNET == set()


def test_each_script_can_be_run() -> None:
    assert [path.name for path in (ROOT / ".ci").iterdir() if not os.access(path, os.X_OK)] == []
