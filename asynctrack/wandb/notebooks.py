"""Notebooks: whether this process is one's kernel."""

from __future__ import annotations

import sys
from typing import Any


def in_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
