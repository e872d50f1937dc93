"""`python -m tests.simulation`: run many seeds, or one again.

    python -m tests.simulation --seeds 500            0 to 499, two at once
    python -m tests.simulation --seeds 500:600 --at-once 4
    python -m tests.simulation --seed 17              one, with its plan
    python -m tests.simulation --seed 17 --plan       only its plan

The last line has the totals, also where it is stopped (Ctrl-C, SIGTERM); the exit code is 0 where all were run and nothing was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]  # where `simulation` is found by its own processes, too

import msgspec  # noqa: E402

from simulation.one import Outcome  # noqa: E402
from simulation.plan import make_plan  # noqa: E402
from simulation.seeds import failure, parts_here, run_seeds  # noqa: E402

_TOTALS = ("sessions", "kills", "accepted", "dropped", "lost", "twice", "disordered")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="10", help="COUNT, or FIRST:AFTER_LAST (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="this one only")
    parser.add_argument("--plan", action="store_true", help="print the plans, and do nothing")
    parser.add_argument("--at-once", type=int, default=2, help="seeds that run at the same time (default: %(default)s)")
    parser.add_argument(
        "--without", action="append", default=[], choices=("mounts", "hangs"), help="as where these cannot be had"
    )
    parser.add_argument(
        "--keep", type=Path, default=None, help="where directories are made, and kept of seeds that fail"
    )
    given = parser.parse_args()
    parts = msgspec.structs.replace(parts_here(), **dict.fromkeys(given.without, False))
    first, _, last = given.seeds.rpartition(":")
    seeds = range(int(first or 0), int(last)) if given.seed is None else range(given.seed, given.seed + 1)
    if given.plan:
        print("\n\n".join(f"seed {seed}\n{make_plan(seed, parts)}" for seed in seeds))
        return 0
    return _run(seeds, given, parts)


def _run(seeds: range, given: argparse.Namespace, parts: object) -> int:
    begin = time.monotonic()
    totals = dict.fromkeys(_TOTALS, 0)
    failed: list[int] = []
    count = 0
    asked = _ask_to_stop()
    begun = itertools.takewhile(lambda _: not asked.is_set(), seeds)
    for count, (outcome, directory) in enumerate(run_seeds(begun, parts, given.at_once, given.keep), 1):  # type: ignore[arg-type]
        for name in _TOTALS:
            totals[name] += getattr(outcome, name)
        if outcome.problems:
            failed.append(outcome.seed)
            print(failure(outcome, directory, parts), flush=True)  # type: ignore[arg-type]
        print(f"{count}/{len(seeds)}  {_line(outcome)}", flush=True)
    told = ", ".join(f"{totals[name]:,} {name}" for name in _TOTALS)
    all_told = f"{count} seeds" if count == len(seeds) else f"stopped after {count} of {len(seeds)} seeds"
    print(
        f"{all_told}, {told}; {len(failed)} failed{f': {sorted(failed)}' if failed else ''}; {time.monotonic() - begin:.0f} s"
    )
    return 1 if failed or count < len(seeds) else 0


def _ask_to_stop() -> threading.Event:
    """What the first Ctrl-C or SIGTERM sets; a second one ends this process."""
    asked = threading.Event()

    def ask(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        asked.set()
        os.write(2, b"no more seeds are begun; those that run are waited for\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return asked


def _line(outcome: Outcome) -> str:
    told = ", ".join(f"{getattr(outcome, name):,} {name}" for name in _TOTALS[:4])
    return f"seed {outcome.seed}: {'FAILED' if outcome.problems else 'well'}, {told}, {outcome.seconds} s"


if __name__ == "__main__":
    sys.exit(main())
