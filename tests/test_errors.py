"""Errors: what a pool's worker raises is the same error in the process that has the pool."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE_S

from asynctrack import errors

OF_ANNOTATIONS: dict[str, Any] = {
    "int": 5,
    "float": 0.5,
    "Sequence": ["x"],
    "Iterable": ["x"],
    "OSError": OSError(28, "no room", "/x"),
}


def samples() -> Iterator[errors.AsynctrackError]:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if not issubclass(kind, errors.AsynctrackError):  # a warning
            continue
        given = [
            one for one in list(inspect.signature(kind.__init__).parameters.values())[1:] if one.default is one.empty
        ]
        given = [one for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        values = {
            one.name: next((value for word, value in OF_ANNOTATIONS.items() if word in str(one.annotation)), "abc")
            for one in given
        }
        named = {one.name for one in given if one.kind is one.KEYWORD_ONLY}
        yield kind(*[value for key, value in values.items() if key not in named], **{key: values[key] for key in named})


@pytest.mark.parametrize("error", list(samples()), ids=lambda error: type(error).__name__)
def test_error_arrives_as_it_was_raised(error: errors.AsynctrackError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
        if isinstance(error, OSError):
            assert (again.errno, again.filename) == (error.errno, error.filename)


POOL = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import asynctrack
from asynctrack.errors import RunHasEnded

def attach(run):
    asynctrack.attach(run)

if __name__ == "__main__":
    with asynctrack.init("p", dir=sys.argv[1]) as run:
        pass
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in range(2):
            try:
                pool.submit(attach, str(run.path)).result(timeout=30)
            except RunHasEnded as error:
                print(error)
"""


@pytest.mark.system
def test_pool_goes_on_where_a_worker_cannot_attach(own_host: Path, runs: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(POOL)
    done = subprocess.run([sys.executable, script, runs], capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("has ended") == 2
