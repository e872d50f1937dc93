"""Class origin: find out from where another process could import a user's class.

Runs in the caller. Standard library only.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Mapping
from types import ModuleType
from typing import Any

# Module names of classes that are defined in the script itself.
_SCRIPT = ("__main__", "__mp_main__")

# Earlier answers: when the script has ended, its module no longer knows its file's name.
_found: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()


def origin_of(defined: type) -> dict[str, Any]:
    """Describe where a class can be imported from, as `run.json` keeps it.

    Returns:
        `class`, its dotted path; `folder`, the import path that it needs; `script`, true where the class is in the
            script itself. Empty where no
        other process could reach it: it was defined in a function, at a prompt or in a notebook.
    """
    if defined in _found:
        return dict(_found[defined])
    module = sys.modules.get(defined.__module__)
    name = _importable_name(defined.__module__, module)
    if name is None or "." in defined.__qualname__:
        return {}
    found: dict[str, Any] = {"class": f"{name}.{defined.__qualname__}"}
    if folder := _folder(name, module):
        found["folder"] = folder
    if defined.__module__ in _SCRIPT:
        found["script"] = True
    _found[defined] = dict(found)
    return found


def delivery_command(stored: Mapping[str, Any]) -> str:
    """Say how a person delivers a run to a backend that lived in its process."""
    path, folder = stored.get("class"), stored.get("folder")
    if not isinstance(path, str):
        kind = stored.get("kind")
        return f"to deliver the rest, have a backend class for it in a module, and run `asynctrack sync RUN --to MODULE.CLASS --as {kind}`"
    import shlex

    there = f"cd {shlex.quote(folder)} && " if isinstance(folder, str) else ""
    how = f"`{there}asynctrack sync RUN --to {path}` delivers the rest"
    module = path.rpartition(".")[0]
    return (
        f'{how}; since that imports {module}, what {module} runs must be below `if __name__ == "__main__":`'
        if stored.get("script")
        else how
    )


def _importable_name(module_name: str, module: ModuleType | None) -> str | None:
    if module_name not in _SCRIPT:
        return module_name if getattr(module, "__spec__", None) is not None else None
    spec = getattr(module, "__spec__", None)
    if spec is not None and module_name == "__main__":  # python -m package.module
        return str(spec.name)
    stem, extension = os.path.splitext(os.path.basename(getattr(module, "__file__", None) or ""))
    return stem if extension == ".py" and stem.isidentifier() else None


def _folder(name: str, module: ModuleType | None) -> str | None:
    """Return the folder that has to be among the import paths."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return None
    path = os.path.abspath(file)
    for _ in range(name.count(".") + 1 + (os.path.basename(path) == "__init__.py")):
        path = os.path.dirname(path)
    return path
