"""TensorBoard: write one event file per run, which the real TensorBoard reads and follows.

Runs on a thread of the worker.

The writer is our own (`tfevents.events` describes the format and its source). A record of four numbers takes 2 us of
CPU, where tensorboardX takes 200 and TensorBoard's `EventFileWriter` with its messages 43; it needs neither of them.

Each record is in the file once, also after a crash. A file that something else has changed is left alone, and the whole
run is written again below it, as the TensorBoard run `rebuilt-2`.

Numbers are scalars, arrays are histograms, all other values are texts. The config is in the HParams table as it was
when the first record was delivered. It is also the text `config`, which is written again when it changes. Changes of
the summary are scalars and texts `summary/KEY` at step 0, which the table shows as metrics. TensorBoard's fast loader,
its default, forgets points when their step comes again: start it with `--load_fast=false` where steps repeat.

Of several writers each has a folder, `rank3` below that of the owner: TensorBoard shows a line for each. The HParams
table, the config and the summary are the owner's.

With `serve=True` the server belongs to the worker, not to the caller. It runs for as long as the run is delivered, and
never forks; the user's process gets no child, no pipe and no thread. The caller only finds a free port, and prints the
server's address.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from asynctrack._system import messages
from asynctrack.backends.base import ActionRequired, Backend, Context, Execution, Sink, WriterSelection
from asynctrack.errors import InvalidSettings, UsageError
from asynctrack.settings import check_name, check_project, project_directory

_FOLDER: Final = "tensorboard"
_LONGEST_FLUSH_S: Final = 3600.0
# TensorBoard's own default is 5 s. With shorter intervals than this it would do little else. Arbitrary.
_SHORTEST_RELOAD_S: Final = 1.0


class TensorBoard(Backend, frozen=True, kw_only=True, tag="tensorboard"):
    """Writes event files for TensorBoard: scalars, texts, histograms and the HParams table.

    Attributes:
        dir: folder for runs: each is in PROJECT/RUN_ID below it. None is `tensorboard` in the run's own directory.
        flat: the files lie in `dir` itself: of one run, or of several that are to be read as one.
        flush_s: seconds that a record waits for others before it is written, at most. A longer time costs less, a
            shorter one shows it earlier.
        serve: start the real TensorBoard on 127.0.0.1, print its address, and end it with the run. Needs `pip install
            'asynctrack[tensorboard]'`.
        port: of that server; 0 for a free one.
    """

    execution: ClassVar[Execution] = "worker"
    can_split: ClassVar[bool] = True

    dir: str | None = None
    flat: bool = False
    flush_s: float = 1.0
    serve: bool = False
    port: int = 0
    writers: WriterSelection = "split"

    @property
    def batch_age_s(self) -> float:  # type: ignore[override]  # of the class elsewhere
        """Return `flush_s`: a batch is written at once."""
        return self.flush_s

    def __post_init__(self) -> None:
        where: object = self.dir
        if isinstance(where, os.PathLike):
            msgspec.structs.force_setattr(self, "dir", os.fspath(where))
        checks = [
            ("dir", self.dir is None or (isinstance(self.dir, str) and self.dir), "a path or None"),
            ("flat", self.flat is False or (self.flat is True and self.dir), "False, or True with a dir"),
            ("flush_s", _is_number(self.flush_s) and 0 <= self.flush_s <= _LONGEST_FLUSH_S, "from 0 to 3600 seconds"),
            ("serve", self.serve in (True, False), "True or False"),
            ("port", _is_number(self.port) and self.port in range(1 << 16), "from 0 to 65535"),
        ]
        problems = [
            f"{name} must be {what}; got {getattr(self, name)!r:.80}" for name, good, what in checks if not good
        ]
        if problems:
            raise InvalidSettings(problems)
        super().__post_init__()

    def prepare(self) -> TensorBoard:
        """Make the directory absolute and choose a port, so that the settings hold in any process.

        Print the server's address on standard error.
        """
        where = None if self.dir is None else os.path.abspath(os.path.expanduser(self.dir))
        port = _announce(self.port) if self.serve else None
        return msgspec.structs.replace(self, dir=where, serve=port is not None, port=port or self.port)

    def external_targets(self) -> list[str]:
        """List the folder outside the run's directory, and the server's address."""
        return ([] if self.dir is None else [self.dir]) + ([f"127.0.0.1:{self.port}"] if self.serve else [])

    def open(self, context: Context) -> Sink:
        """Open the event file, and start the server where that is asked for.

        Raises:
            ActionRequired: the folder or the file leads out of its directory by a link or by its name.
        """
        from asynctrack.backends.tfevents.sink import EventSink

        sink = EventSink(context, self._folder(context), f".{context.run_id}" if self.flat else "")
        if self.serve and context.writer is None:
            # The parent of the event files' folder: TensorBoard would call that folder ".", and find no metrics for its HParams table.
            logdir = context.directory if self.dir is None else Path(self.dir)
            sink.serve(logdir, self.port, max(_SHORTEST_RELOAD_S, self.flush_s))
        return sink

    def _folder(self, context: Context) -> Path:
        from asynctrack.backends.tfevents.sink import inside

        if self.dir is None:
            folder = inside(context.directory, _FOLDER)
        else:
            folder = Path(self.dir) if self.flat else Path(self.dir, *_checked(context))
        return folder if context.writer is None else inside(folder, context.writer)


def _checked(context: Context) -> tuple[str, str]:
    """Return project and id of a run, which may come from somebody else.

    Raises:
        ActionRequired: they lead elsewhere.
    """
    try:
        return project_directory(check_project(context.project)), check_name("id", context.run_id)
    except UsageError as error:
        raise ActionRequired(str(error)) from error


def _announce(port: int) -> int | None:
    """Choose a port and print the server's address; return None where TensorBoard is not installed."""
    if (found := importlib.util.find_spec("tensorboard")) is None or found.origin is None:
        messages.warn_now(
            "asynctrack: TensorBoard is not installed, so its files are written, but not served; "
            "`pip install 'asynctrack[tensorboard]'` brings it"
        )
        return None
    if port == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
    messages.show(f"asynctrack: TensorBoard is at http://127.0.0.1:{port}/")
    return port


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
