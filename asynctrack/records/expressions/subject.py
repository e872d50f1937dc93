"""Subject: what an expression asks of a run, or of a run at one of its records."""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Any, Final, Literal, Protocol

How = Literal["first", "last", "min", "max", "mean"]
Goal = Literal["minimize", "maximize"]


class Absent(enum.Enum):
    """The value that something has not."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return self.name

    def __bool__(self) -> bool:
        return False


MISSING: Final = Absent.MISSING


class Subject(Protocol):
    """Answers what an expression asks. Each call answers MISSING where there is nothing."""

    def field(self, name: str) -> Any:
        """Return what a name of `names.FIELDS` stands for; several of it, as of `tag`, are a list."""

    def config(self, key: str) -> Any:
        """Return a value of the config, by its flat name: levels are joined by `/`."""

    def summary_value(self, key: str) -> Any:
        """Return a value of the summary, by its flat name."""

    def metric(self, key: str, how: How) -> Any:
        """Return a number of a metric."""

    def goal(self, key: str) -> Goal | None:
        """Return which values of a metric are better; None where nobody has said it."""

    def known(self) -> Collection[str]:
        """Return the names of config, summary and metrics, for a suggestion where a name is wrong."""


class RecordSubject(Subject, Protocol):
    """A run at one of its records."""

    def value(self, key: str) -> Any:
        """Return what the record has by a flat name."""
