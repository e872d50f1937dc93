"""Partings: lets go of runs that the deliveries have done with. Runs in the worker. Standard library only."""

from __future__ import annotations

from asynctrack.worker.drain_rules import Parting, next_parting
from asynctrack.worker.drained_runs import DrainedRuns
from asynctrack.worker.run_journal import RunJournal

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Callable

    from asynctrack.worker.drain_rules import PartingStep


class Partings:
    """The runs to let go of.

    Their callers have said all they had to. Where an exit code is still to come that may say otherwise it is waited for, and the
    backends are told once more.

    Args:
        runs: those that are open.
        check_ends: sees how a run's producers have ended.
    """

    def __init__(self, runs: DrainedRuns, check_ends: Callable[[RunJournal], float]) -> None:
        self._runs = runs
        self._check_ends = check_ends
        self._asked: list[Parting] = []

    def ask(self, run: RunJournal, *, done: bool, told: str | None, notes: int = 0) -> None:
        """Ask for a run to be let go of. From any thread."""
        self._asked.append(Parting(run, done, told, notes=notes))

    def advance(self, *, leaving: bool) -> None:
        """Go on with each run that nobody waits for the disk of.

        Args:
            leaving: whether the worker has been asked to end.
        """
        for parting in list(self._asked):
            if self._runs.may_visit(parting.run):
                self._advance(parting, leaving)

    def _advance(self, parting: Parting, leaving: bool) -> None:
        run, step = parting.run, self._next_step(parting, leaving)
        if step == "wait":
            return
        if step == "wait for exit":
            run.signal_done()
            # Where none was told of the run, none has to be told more.
            told, notes = (parting.told, parting.notes) if parting.told else (run.status, run.notes)
            waiting = Parting(run, parting.done, told, waits=True, notes=notes)
            self._asked[self._asked.index(parting)] = waiting
            self._advance(waiting, leaving)
            return
        if step == "check":
            # The list still has it: if its disk hangs here, the thread that takes over finds it.
            self._runs.visit(run, self._check_ends)
            step = "let go" if run.status == parting.told and not parting.has_news() else "drop"
            if step == "drop":
                self._runs.notify_growth([run])
        self._asked.remove(parting)
        if step == "let go":
            self._runs.relay.visit(run.path, run.disk, self._runs.let_go, run, parting.done)

    def _next_step(self, parting: Parting, leaving: bool) -> PartingStep:
        run = parting.run
        asked_for = parting.waits and (leaving or self._runs.relay.visit(run.path, run.disk, run.asked_for))
        return next_parting(
            parting,
            status=run.status,
            is_live=bool(run.live),
            is_replaced=self._runs.by_path.get(run.path) is not run,
            awaits_exit=run.awaits_exit(),
            asked_for=asked_for,
            has_news=parting.has_news(),
        )
