"""`python -m tests.simulated_hosts`: run seeds of a run on many hosts, or one again.

    python -m tests.simulated_hosts --seeds 20               0 to 19 of 64 ranks on 8 hosts, by each carrier
    python -m tests.simulated_hosts --size small --seeds 5:9
    python -m tests.simulated_hosts --seed 17 --carrier folder
    python -m tests.simulated_hosts --seed 17 --plan         only its plans

The exit code is 0 where nothing was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]  # where `simulated_hosts` is found by its own processes, too

import msgspec  # noqa: E402

from simulated_hosts.plan import CARRIERS, PARTS, SIZES, Parts, make_plan  # noqa: E402
from simulated_hosts.seeds import carrier_of_this_commit, failure, parts_here, run_seed  # noqa: E402

_OF_COMMIT = "of-commit"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulated_hosts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", default="20", help="COUNT, or FIRST:AFTER_LAST (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="this one only")
    parser.add_argument(
        "--carrier", choices=[*CARRIERS, _OF_COMMIT], default=None, help="this one only, or that whose turn it is"
    )
    parser.add_argument("--size", choices=[*SIZES], default="large", help="default: %(default)s")
    parser.add_argument("--without", action="append", default=[], choices=PARTS, help="as where these cannot be had")
    parser.add_argument("--plan", action="store_true", help="print the plans, and do nothing")
    parser.add_argument("--keep", type=Path, default=None, help="where directories are made, and kept of what fails")
    given = parser.parse_args()
    first, _, last = given.seeds.rpartition(":")
    seeds = range(int(first or 0), int(last)) if given.seed is None else range(given.seed, given.seed + 1)
    parts = msgspec.structs.replace(parts_here(), **dict.fromkeys(given.without, False))
    chosen = carrier_of_this_commit() if given.carrier == _OF_COMMIT else given.carrier
    todo = [(seed, carrier) for carrier in CARRIERS if chosen in (None, carrier) for seed in seeds]
    if given.plan:
        print("\n\n".join(f"seed {seed}\n{make_plan(seed, carrier, given.size, parts)}" for seed, carrier in todo))
        return 0
    return _run(todo, given.size, parts, given.keep)


def _run(todo: list[tuple[int, str]], size: str, parts: Parts, keep: Path | None) -> int:
    begin, failed, accepted, merged = time.monotonic(), [], 0, 0
    for seed, carrier in todo:
        outcome, directory = run_seed(seed, carrier, size, parts, keep)
        accepted, merged = accepted + outcome.accepted, merged + outcome.merged
        if outcome.problems:
            failed.append((seed, carrier))
            print(failure(outcome, carrier, size, directory, parts), flush=True)
        how = "FAILED" if outcome.problems else "well"
        told = f"{outcome.accepted:,} accepted, {outcome.merged:,} merged, {outcome.rings} rings, {outcome.seconds} s"
        print(f"seed {seed}, {carrier}: {how}, {told}", flush=True)
    print(
        f"{len(todo)} seeds, {accepted:,} accepted, {merged:,} merged; {len(failed)} failed {failed or ''}; {time.monotonic() - begin:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
