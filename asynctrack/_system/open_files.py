"""Open files: how many this process may have open."""

from __future__ import annotations

import contextlib
from typing import Final

# More than the hosts and runs of any collector need. Arbitrary.
_MOST: Final = 65_536


def raise_limit() -> None:
    """Let this process have as many files open as it may, up to a number that no collector needs: each host takes some, and each run."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
