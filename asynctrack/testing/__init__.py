"""Testing: check that a backend keeps its contract, and replace one by a fake. For a user's own tests.

    import json

    import asynctrack
    from asynctrack.testing import BackendContract

    class TestMine(BackendContract):
        exactly_once = True

        def make_backend(self, run):
            return asynctrack.JSONLines(file="mine.jsonl")

        def read(self, run):
            for text in (run / "mine.jsonl").read_text().splitlines():
                line = json.loads(text)
                yield from ((line["_step"], key, float(line[key])) for key in line if key[0] != "_")

`contract` has the contract, `carrier_contract` that of carriers between machines, `journaled` makes runs without a worker and delivers them here, `scripted` is a backend
that fails on demand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrack.testing.carrier_contract import CarrierContract, Carrying, HostPart
from asynctrack.testing.contract import BackendContract, Row
from asynctrack.testing.journaled import JournaledRun, deliver, deliver_in_process
from asynctrack.testing.scripted import Call, Scripted, ScriptedInCaller, ScriptedInProcess, Trouble, calls, taken

__all__ = [
    "BackendContract",
    "Call",
    "CarrierContract",
    "Carrying",
    "HostPart",
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


if not TYPE_CHECKING:  # a type checker that saw it would let every name pass

    def __getattr__(name: str) -> Any:
        from asynctrack._system.suggestions import unknown_attribute

        raise unknown_attribute(globals(), name, "asynctrack")
