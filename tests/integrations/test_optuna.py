"""Optuna: each trial of a real study is a record, beside what the study itself has."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from support import ended, manifest, outcome, records, start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")]
optuna = pytest.importorskip("optuna", reason="needs the frameworks: tests/README.md")

from asynctrack.errors import InvalidSettings  # noqa: E402
from asynctrack.integrations.naming import directory_name  # noqa: E402
from asynctrack.integrations.optuna import AsyncCallback  # noqa: E402
from integrations import examples  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_host")]


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -2, 2)
    trial.set_user_attr("twice", 2 * x)
    for step in range(3):
        trial.report(x * x + 3 - step, step)
    if trial.number == 3:
        raise optuna.TrialPruned
    if trial.number == 4:
        raise FloatingPointError
    return x * x


def study(direction: str = "minimize", **settings: object) -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0), **settings)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("jobs", [1, 3])
def test_each_trial_is_a_record_with_what_the_study_has(runs: Path, direction: str, jobs: int) -> None:
    found = study(direction)
    with AsyncCallback("tuning", dir=runs, config={"seed": 0}) as track:
        found.optimize(objective, n_trials=10, callbacks=[track], catch=(FloatingPointError,), n_jobs=jobs)
    assert track.run is not None
    kept = {record.step: record.data for record in records(track.run.path)}
    assert sorted(kept) == list(range(10))
    for trial in found.trials:
        data = kept[trial.number]
        assert (data["state"], data["params"], data["user_attrs"]) == (trial.state.name, trial.params, trial.user_attrs)
        assert data.get("value") == trial.value
        assert data["intermediate_values"] == {str(step): value for step, value in trial.intermediate_values.items()}
        assert data["duration_s"] == trial.duration.total_seconds()
    written = manifest(track.run.path)
    assert written["config"] == {"study": found.study_name, "directions": [direction], "seed": 0}
    best = {"best_value": found.best_value, "best_trial": found.best_trial.number, "best_params": found.best_params}
    assert written["summary"] == best
    assert written["status"] == "finished"


def test_several_objectives_have_a_value_each(runs: Path) -> None:
    found = optuna.create_study(directions=["minimize", "maximize"], study_name="two/at once")
    with AsyncCallback(dir=runs) as track:
        found.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 2.0), n_trials=2, callbacks=[track])
    assert track.run is not None and track.run.project == directory_name("two/at once")
    assert [record.data["values"] for record in records(track.run.path)] == [
        {"0": trial.values[0], "1": 2.0} for trial in found.trials
    ]
    assert manifest(track.run.path)["summary"] == {}


def test_processes_of_a_study_record_their_trials_in_one_run(runs: Path, tmp_path: Path) -> None:
    script = """
import sys
import optuna
from asynctrack.integrations.optuna import AsyncCallback
directory, storage, worst = sys.argv[1:]
study = optuna.create_study(study_name="both", storage=storage, load_if_exists=True)
with AsyncCallback(dir=directory, id="one", join=True) as track:
    study.optimize(lambda trial: float(worst) + trial.suggest_float("x", 0, 1), n_trials=3, callbacks=[track])
    print("0", flush=True)
    sys.stdin.readline()
"""
    storage = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(study_name="both", storage=storage)
    children = [start(script, runs, storage, worst, RANK=str(rank)) for rank, worst in enumerate((0, 10))]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "0\n"
    for child in children:
        outcome(child)
    wait_until(lambda: ended(runs / "both" / "one"), "the run has ended")
    found = records(runs / "both" / "one")
    assert sorted(record.step for record in found) == list(range(6))
    assert Counter(record.writer for record in found) == {"rank0": 3, "rank1": 3}
    best = optuna.load_study(study_name="both", storage=storage).best_trial
    assert manifest(runs / "both" / "one")["summary"]["best_trial"] == best.number


def test_the_best_trial_is_that_of_the_study_also_where_it_goes_on(runs: Path) -> None:
    found = study()
    found.enqueue_trial({"x": 0.0})
    found.optimize(objective, n_trials=1)
    with AsyncCallback("tuning", dir=runs) as track:
        found.optimize(objective, n_trials=2, callbacks=[track])
    assert track.run is not None
    assert manifest(track.run.path)["summary"]["best_trial"] == 0


def test_a_study_that_fails_leaves_a_failed_run(runs: Path) -> None:
    track = AsyncCallback("tuning", dir=runs)
    with pytest.raises(FloatingPointError), track:
        study().optimize(objective, n_trials=10, callbacks=[track])
    assert track.run is not None
    assert (manifest(track.run.path)["status"], len(records(track.run.path))) == ("failed", 4)


def test_without_a_trial_there_is_no_run(runs: Path) -> None:
    with AsyncCallback("tuning", dir=runs) as track:
        track.finish()
    assert not runs.exists()


def test_settings_are_refused_at_once() -> None:
    with pytest.raises(InvalidSettings, match="no_such"):
        AsyncCallback("tuning", no_such=1)


def test_a_killed_study_keeps_its_trials(runs: Path) -> None:
    script = """
import os, signal, sys
import optuna
from asynctrack.integrations.optuna import AsyncCallback
def stop(study, trial):
    if trial.number == 20:
        os.kill(os.getpid(), signal.SIGKILL)
optuna.create_study().optimize(lambda trial: trial.suggest_float("x", 0, 1), callbacks=[AsyncCallback("tuning", dir=sys.argv[1]), stop])
"""
    child = start(script, runs)
    assert child.wait() == -signal.SIGKILL, child.stderr and child.stderr.read()
    child.communicate()
    (run,) = (runs / "tuning").iterdir()
    wait_until(lambda: ended(run), "the worker has noted the end")
    assert [record.step for record in records(run)] == list(range(21))


def test_the_example_runs(tmp_path: Path) -> None:
    assert "is the best value" in examples.run("optuna_search", cwd=tmp_path)
