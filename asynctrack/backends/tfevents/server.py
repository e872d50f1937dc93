"""Server: run the real TensorBoard on loopback, in a process that ends with its owner.

As a script it is that process: `python -I -S .../server.py`, with its order on standard input, a line of JSON:

    {"sys_path": [...], "owner": pid, "flags": {"logdir": "/runs/p/a/tensorboard", "port": 6006, ...}}

Three things tell it to end: more input after that line, the end of its input, the end of its owner. It then kills its
own process group. A forked child of the owner may still hold the pipe open; that does not keep the server alive, since
the kernel reports the owner's own end (pidfd_open(2)). Standard library only, apart from TensorBoard.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

# The lowest priority of the system: TensorBoard's Python takes 20 to 100 us per event of a core that the training needs.
_NICE = 19


class TensorBoardServer:
    """Starts a TensorBoard, and owns it.

    Args:
        logdir: folder that it shows.
        port: of 127.0.0.1.
        reload_interval_s: seconds between two looks for new events.
        log: file for its output.
    """

    def __init__(self, logdir: Path, port: int, reload_interval_s: float, log: Path) -> None:
        from asynctrack._system.spawn import spawn

        flags = {
            "logdir": str(logdir),
            "host": "127.0.0.1",
            "port": port,
            "reload_interval": reload_interval_s,
            "load_fast": "false",  # the fast loader forgets all points behind a step when that step comes again
        }
        order = {"sys_path": sys.path, "owner": os.getpid(), "flags": flags}
        theirs, self._fd = os.pipe()
        try:
            spawn("backends/tfevents/server.py", [], log_path=str(log), stdin=theirs)
            os.write(self._fd, json.dumps(order).encode() + b"\n")
        except BaseException:
            os.close(self._fd)
            raise
        finally:
            os.close(theirs)

    def close(self) -> None:
        """End it. Does not wait."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, b"\n")
        os.close(self._fd)


def main() -> None:
    """Serve until the owner ends or says so."""
    os.closerange(3, 4096)
    order: dict[str, Any] = json.loads(_first_line())
    threading.Thread(target=_end_with, args=(order["owner"],), daemon=True).start()
    os.nice(_NICE)
    sys.path[:] = order["sys_path"]
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(**order["flags"])
    board.launch()
    threading.Event().wait()


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit()
        line += byte
    return line


def _end_with(owner: int) -> None:
    watch = select.poll()
    watch.register(0, select.POLLIN)
    with contextlib.suppress(
        OSError, AttributeError
    ):  # an old kernel has no pidfd: only the input tells of the owner's end
        watch.register(os.pidfd_open(owner), select.POLLIN)
    watch.poll()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
