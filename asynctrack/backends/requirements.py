"""Requirements: find out whether libraries are installed, without importing them.

Runs anywhere. Standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping


def lacking(needs: Mapping[str, str]) -> list[str]:
    """List the modules that are missing, each in a sentence that says what to install."""
    return [
        f"it needs {module}, which is not installed: pip install '{wanted}'"
        for module, wanted in needs.items()
        if not is_there(module)
    ]


def is_there(module: str) -> bool:
    """Return whether a module can be imported here, as far as that can be told without importing it."""
    if sys.modules.get(module) is not None:
        return True
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
