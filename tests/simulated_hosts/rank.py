"""The process that logs, one rank of a host: `python -m simulated_hosts.rank DIRECTORY WHO RATE`, until there is a file `stop` in the directory.

It goes on to the next record only when `log()` has returned True, and keeps a ledger that survives it. A file `large/WHO` has it log a record of two megabytes.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from pathlib import Path

from simulation.ledger import Ledger

import asynctrack

LARGE_BYTES = 2 << 20
# Four of the large records; what waits while a worker is away is far less.
QUEUE_BYTES = 8 << 20
# Between two looks for `stop`, in records.
_LOOK = 10
# Who is told to stop, and does not, says where it is.
_HANGS_S = 150.0


def main(directory: Path, who: str, rate: float) -> int:
    faulthandler.dump_traceback_later(_HANGS_S, exit=True)
    ledger = Ledger(directory / "ledgers", who)
    config = {who: int(os.environ["RANK"])}
    run = asynctrack.init("p", id="job", dir=directory / "parts", queue_bytes=QUEUE_BYTES, config=config, quiet=True)
    large = directory / "large" / who
    while ledger.accepted % _LOOK or not (directory / "stop").exists():
        n = ledger.accepted
        data: dict[str, object] = {"who": who, "n": n, "half": n / 2}
        if n % _LOOK == 0 and large.exists():
            large.unlink()
            data["large"] = os.urandom(LARGE_BYTES // 2).hex()
        if not ledger.log(run.log, data, n) or ledger.accepted == n:
            print(f"{who}: record {n} was not accepted", flush=True)
            return 1
        time.sleep(1 / rate)
    stats = run.finish()
    ledger.end()
    print(stats, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
