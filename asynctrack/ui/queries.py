"""Queries: the parameters of a request to the page's server, within limits. Runs in the server of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from asynctrack.curves.cuts import History
from asynctrack.ui.run_list import ListedRun, RunList

# Of a body, and of the parameters in it. Arbitrary.
MOST_BYTES: Final = 4 << 20
_MOST_FIELDS: Final = 50_000
# Buckets of one answer, as runs x metrics x buckets: 100 MB.
_MOST_IN_ALL: Final = 4_000_000
_MOST_BUCKETS: Final = 10_000
# Characters. Arbitrary: a hundred times a long condition.
_LONGEST_EXPRESSION: Final = 20_000
_FORM: Final = "application/x-www-form-urlencoded"


class BadQuery(Exception):
    """Raised where a request cannot be answered.

    Attributes:
        status: of HTTP.
        error: what was expected, and what came.
        more: other fields of the answer.
    """

    def __init__(self, status: int, error: str, **more: Any) -> None:
        self.status: int = status
        self.error: str = error
        self.more: dict[str, Any] = more
        super().__init__(error)


class Query:
    """The parameters of a request, by name.

    Args:
        pairs: names and values, as they came.
        headers: of the request.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def header(self, name: str) -> str:
        """Return a header of the request."""
        return self._headers.get(name, "")

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter, each once."""
        return list(dict.fromkeys(self._values.get(name, ())))

    def text(self, name: str, default: str = "") -> str:
        """Return the last value of a parameter."""
        return self._values.get(name, [default])[-1]

    def expression(self, name: str) -> str:
        """Return a condition or an order, without blanks around it.

        Raises:
            BadQuery: it is longer than anybody writes: to parse a megabyte takes seconds.
        """
        said = self.text(name).strip()
        if len(said) > _LONGEST_EXPRESSION:
            raise BadQuery(400, f"{name} must have at most {_LONGEST_EXPRESSION} characters; got {len(said)}")
        return said

    def number(self, name: str) -> float | None:
        """Return a number; None where it was not given.

        Raises:
            BadQuery: it is none.
        """
        said = self.text(name)
        if not said:
            return None
        try:
            found = float(said)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise BadQuery(400, f"{name} must be a number; got {said!r:.80}")
        return found

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """Return a whole number.

        Raises:
            BadQuery: it is none, or beyond the limits.
        """
        said = self.text(name) or str(default)
        if not (said.isascii() and said.isdecimal() and len(said) < 20 and low <= int(said) <= high):
            raise BadQuery(400, f"{name} must be a whole number from {low} to {high}; got {said!r:.80}")
        return int(said)

    def history(self) -> History:
        """Return which history is asked for."""
        said = self.text("history", "last")
        if said == "last":
            return "last"
        if said == "all":
            return "all"
        raise BadQuery(400, f"history must be 'last' or 'all'; got {said!r:.80}")

    def buckets(self, default: int, runs: int, keys: int) -> int:
        """Return how many buckets are asked for, of so many runs and metrics."""
        found = self.whole("buckets", default, 1, _MOST_BUCKETS)
        if runs * keys * found > _MOST_IN_ALL:
            asked = f"{runs} runs x {keys} metrics x {found} buckets"
            raise BadQuery(400, f"at most {_MOST_IN_ALL} buckets are answered at once; {asked} were asked for")
        return found

    def run(self, listing: RunList) -> ListedRun:
        """Return the run that is asked for.

        Raises:
            BadQuery: there is none.
        """
        found = listing.get(self.text("run"))
        if found is None:
            raise BadQuery(404, f"there is no run {self.text('run')!r:.200} here")
        return found

    def runs(self, listing: RunList) -> list[ListedRun]:
        """Return the runs that are asked for, without those that are not there.

        Raises:
            BadQuery: there is none of them.
        """
        asked = self.texts("run")
        found = [run for key in asked if (run := listing.get(key)) is not None]
        if not found:
            raise BadQuery(404, f"there is no run {asked[0]!r:.200} here" if asked else "expected ?run=")
        return found

    def keys(self) -> list[str]:
        """Return the metrics that are asked for.

        Raises:
            BadQuery: there is none.
        """
        if not (found := self.texts("key")):
            raise BadQuery(400, "expected ?key= with the name of a metric")
        return found


async def query_of(request: Request) -> Query:
    """Read the parameters of a request: those of its address, or of the form in its body.

    Raises:
        BadQuery: the body is too large, or no form.
    """
    pairs = _parsed(request.scope["query_string"])
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _FORM:
            raise BadQuery(400, f"expected a body of the type {_FORM}; got {kind!r:.80}")
        pairs += _parsed(await _body(request))
    return Query(pairs, request.headers)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise BadQuery(400, f"a body may have {MOST_BYTES} bytes at most")
    return bytes(body)


def _parsed(text: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text.decode("latin-1"), keep_blank_values=True, errors="replace", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise BadQuery(400, f"a request may have {_MOST_FIELDS} parameters at most") from None
