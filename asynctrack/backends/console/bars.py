"""Bars: draw a progress bar for each scope of a run, by tqdm. Runs on the display's thread in the process that logs.

They are tqdm's own. So they keep their places among the bars of the user's code, and behave in a terminal and in a
notebook as users expect.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Final, TextIO

from asynctrack._system import messages
from asynctrack.backends.caller_display import Display, in_notebook, is_terminal

# Bars that are drawn; a terminal has few lines. Arbitrary.
MOST_BARS: Final = 20


class Bars(Display):
    """Moves progress bars.

    An item is `[scope, steps done, steps in all or None, text behind the bar, first step, time of the first step]`,
    with the time in seconds since the epoch.

    Args:
        stream: a terminal, or a notebook's.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._bars: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Bars of {', '.join(self._bars) or 'nothing yet'}>"

    def show(self, items: list[Any]) -> None:
        """Move the bars."""
        for scope, done, total, text, first, began_s in items:
            if scope not in self._bars:
                if len(self._bars) == MOST_BARS:
                    continue
                self._bars[scope] = self._bar(scope, total, first, began_s)
            bar = self._bars[scope]
            bar.set_postfix_str(text, refresh=False)
            bar.n = done
            bar.refresh()

    def close(self) -> None:
        """Close the bars, which stay in view."""
        for bar in self._bars.values():
            bar.close()

    def _bar(self, scope: str, total: int | None, first: int, began_s: float) -> Any:
        bar = _bar_class(self._stream)(
            total=total,
            initial=first,
            desc=scope or None,
            dynamic_ncols=True,  # the terminal may be made wider
            mininterval=0.0,  # the sink limits the pace already
            delay=1e-9,  # not drawn before `start_t` is set below
            file=self._stream,
        )
        bar.delay, bar.start_t = 0.0, min(began_s, bar.start_t)
        return bar


def _bar_class(stream: TextIO | None) -> Any:
    if in_notebook(stream):
        from tqdm.notebook import tqdm

        return tqdm
    from tqdm import std

    class Bar(std.tqdm):  # type: ignore[misc]  # tqdm has no types where it is not installed
        monitor_interval = 0  # tqdm's monitor would start a thread in the user's process

    return Bar


def can_draw(stream: TextIO | None) -> bool:
    """Return whether a bar can move on a stream, where it would not be a new line each time.

    Warns where only tqdm is missing.
    """
    if in_notebook(stream):
        return all(importlib.util.find_spec(name) for name in ("tqdm", "ipywidgets"))
    if is_terminal(stream) and importlib.util.find_spec("tqdm") is None:
        messages.warn_now(
            "asynctrack: bars need tqdm, which is not installed: `pip install 'asynctrack[console]'`; lines are shown instead"
        )
        return False
    return is_terminal(stream)
