"""The examples, as modules and as scripts, and other scripts that take their time: a framework alone takes seconds to import."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from support import INSTALLED, ROOT

EXAMPLES = ROOT / "examples"
# Arbitrary: ten times what they take on a machine that has nothing else to do.
_LONGEST_S = 240.0


def load(name: str) -> ModuleType:
    """An example, without what it does as a script."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object, cwd: Path) -> str:
    """What an example prints."""
    return _run([str(EXAMPLES / f"{name}.py"), *map(str, arguments)], cwd=cwd)


def run_script(script: str, *arguments: object, fails: bool = False, **environment: str) -> str:
    """What a script prints, which can import `integrations`; on standard error, if it is to end with exit status 1."""
    path = f"import sys; sys.path[:0] = [{str(ROOT / 'tests')!r}]\n"
    return _run(["-c", path + script, *map(str, arguments)], fails=fails, **environment)


def _run(command: list[str], *, cwd: Path | None = None, fails: bool = False, **environment: str) -> str:
    surroundings = {**os.environ, "PYTHONPATH": str(INSTALLED), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=_LONGEST_S
    )
    assert done.returncode == fails, done.stderr
    return done.stderr if fails else done.stdout
