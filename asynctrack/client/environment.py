"""Environment: which variables asynctrack reads, and a warning of those that look like one of them and are not. Runs in the caller."""

from __future__ import annotations

import os
from typing import Final

from asynctrack._system import messages
from asynctrack._system.suggestions import closest

PREFIX: Final = "ASYNCTRACK_"
# Variables for users, without the prefix.
VARIABLES: Final = (
    "BACKENDS", "COLLECT", "COLLECT_CA", "COLLECT_FILE_BYTES", "COLLECT_TOKEN", "COLLECT_TOKEN_FILE", "ENVIRONMENT", "HOST", "MODE",
    "NATS_CA", "NATS_CERT", "NATS_CREDS", "NATS_KEY", "NATS_MAX_BYTES", "NATS_NKEY", "NATS_PASSWORD", "NATS_PASSWORD_FILE", "NATS_REPLICAS", "NATS_TOKEN",
    "NATS_TOKEN_FILE", "NATS_USER", "PURE", "QUIET", "RUN", "RUN_ID", "SHM",
)  # fmt: skip
# The first two are for tests; the third is for builds; the last marks the processes that a library of a backend starts.
INTERNAL: Final = ("IDLE_EXIT_S", "PRIORITY", "REQUIRE_NATIVE", "STARTED_BY")

_has_looked = False


def warn_of_unknown_variables() -> None:
    """Warn, once in this process, of variables of the environment that begin like ours and that nothing reads."""
    global _has_looked
    if _has_looked:
        return
    _has_looked = True
    given = (name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX))
    if unknown := sorted(name for name in given if name not in VARIABLES and name not in INTERNAL):
        messages.warn_now(f"asynctrack: {'; '.join(map(_not_read, unknown))}")


def _not_read(name: str) -> str:
    found = closest(name, VARIABLES)
    listed = ", ".join(PREFIX + one for one in VARIABLES if not one.startswith("NATS_"))
    meant = f"did you mean {PREFIX}{found}?" if found else f"there are {listed}, and those of NATS"
    return f"{PREFIX}{name} is set in the environment, and asynctrack does not read it; {meant}"
