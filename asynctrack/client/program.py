"""Program: what this process runs and where, for who wants to know where a run comes from. Runs in the caller."""

from __future__ import annotations

import os
import sys
from typing import Any


def program() -> dict[str, Any]:
    """Return the current directory and the script, or `-m` and the name of a module; without what is not known, as the script of a prompt."""
    found: dict[str, Any] = {}
    try:
        found["directory"] = os.getcwd()
    except OSError:  # it was removed
        pass
    script = _script(found.get("directory", "/"))
    return found if script is None else {**found, "script": script}


def _script(directory: str) -> str | None:
    main = sys.modules.get("__main__")
    spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and isinstance(spec.name, str):
        return f"-m {spec.name.removesuffix('.__main__')}"
    if isinstance(path, str):
        return os.path.join(directory, path)
    return os.environ.get("JPY_SESSION_NAME") or None  # a notebook of Jupyter
