"""Entry: `python -I -S .../entry.py MODULE HOST_DIRECTORY` runs `MODULE.main(HOST_DIRECTORY)` with the import path of the calling process.

A script, not a module: an isolated Python does not know where this package lies. Standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import site
import sys
from typing import Any


def read_handshake(host: str) -> dict[str, Any]:
    """Read what the calling process has written for its worker into the host directory; empty where that cannot be read."""
    try:
        with open(os.path.join(host, "host.json"), encoding="utf-8") as file:
            said: dict[str, Any] = json.load(file)
            return said
    except (OSError, ValueError):
        return {}


def find_modules(host: str) -> None:
    """Make importable what the calling process can import, by its handshake in the host directory. The standard library comes first."""
    library = list(sys.path)
    site.main()
    # In the caller's order, which has the versions that fit together; the backends of our own need no more than this interpreter has.
    sys.path[:] = dict.fromkeys([*library, *read_handshake(host).get("sys_path", []), *sys.path])


if __name__ == "__main__":
    os.closerange(3, 4096)
    find_modules(sys.argv[2])
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    importlib.import_module(sys.argv[1]).main(sys.argv[2])
