"""Testing: a contract that any backend can be held to, and fakes. For a user's own tests.

    from asynctrack.testing import BackendContract

    class TestMine(BackendContract):
        def make_backend(self, run):
            return Mine(file="mine.csv")

        def read(self, run):
            with open(run / "mine.csv", newline="") as file:
                return [(int(row["step"]), row["key"], float(row["value"])) for row in csv.DictReader(file)]

`contract` has the contract, `journaled` makes runs without a worker and delivers them here, `scripted` is a backend that fails as it is told.
"""

from __future__ import annotations

from asynctrack.testing.contract import BackendContract, Row
from asynctrack.testing.journaled import JournaledRun, deliver, deliver_in_process
from asynctrack.testing.scripted import Call, Scripted, ScriptedInCaller, ScriptedInProcess, Trouble, calls, taken

__all__ = [
    "BackendContract",
    "Call",
    "JournaledRun",
    "Row",
    "Scripted",
    "ScriptedInCaller",
    "ScriptedInProcess",
    "Trouble",
    "calls",
    "deliver",
    "deliver_in_process",
    "taken",
]
