"""Entry: `python -I -S .../entry.py MODULE HOST_DIRECTORY` runs `MODULE.main(HOST_DIRECTORY)` with what the calling process can import.

A script, not a module: an isolated Python does not know where this package lies. Standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import site
import sys


def find_modules(host: str) -> None:
    """Make importable what the calling process can import, as it said in its host directory; the standard library comes first."""
    library = list(sys.path)
    site.main()
    try:
        with open(os.path.join(host, "host.json"), encoding="utf-8") as file:
            # In the caller's order, which has the versions that fit together.
            sys.path[:] = dict.fromkeys([*library, *json.load(file)["sys_path"], *sys.path])
    except (OSError, ValueError):
        pass  # the backends of our own need no more than this interpreter has


if __name__ == "__main__":
    os.closerange(3, 4096)
    find_modules(sys.argv[2])
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    importlib.import_module(sys.argv[1]).main(sys.argv[2])
