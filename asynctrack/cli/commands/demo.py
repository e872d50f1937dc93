"""`asynctrack demo`: a real optimisation, every step of it tracked, and what that cost.

Four annealers look for the shortest tour through berlin52 and log each step. Needs the core install only.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from math import nan
from pathlib import Path
from statistics import median
from typing import TextIO

import anyio

import asynctrack
from asynctrack._system.paths import expanded
from asynctrack.cli.demo_app import kill
from asynctrack.cli.demo_app.annealing import COLDEST, HOTTEST, MOVES_PER_STEP
from asynctrack.cli.demo_app.berlin52 import OPTIMUM
from asynctrack.cli.demo_app.live import REFRESH_S, Live
from asynctrack.cli.demo_app.race import LogTimes, Race, speed_with_tracking
from asynctrack.cli.demo_app.report import Facts, above_optimum_percent, kill_summary, summary

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    parser.add_argument("--seconds", type=_seconds, default=10.0, help="how long to optimise (default: 10)")
    parser.add_argument(
        "--dir", type=expanded, default=Path("asynctrack_runs"), help="directory for the run (default: %(default)s)"
    )
    parser.add_argument(
        "--kill", action="store_true", help="kill the optimiser half-way, then count the records that survived"
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object")
    parser.add_argument("--seed", type=int, default=52, help="seed of the random numbers (default: %(default)s)")
    parser.add_argument("--_child", dest="child", type=expanded, help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    """Run the demo. Return 0 if every record that was accepted was found again."""
    if args.child is not None:
        return kill.optimise(args.child, folder=args.dir, seconds=args.seconds, seed=args.seed)
    return _kill(args) if args.kill else _show(args)


def _show(args: argparse.Namespace) -> int:
    facts = _race(args, None if args.json else sys.stdout)
    if args.json:
        print(json.dumps(asdict(facts)))
    else:
        print("\n".join(summary(facts, sys.stdout)))
    return 0 if facts.found == facts.accepted else 1


def _kill(args: argparse.Namespace) -> int:
    kill_report = kill.demonstrate(folder=args.dir, seconds=args.seconds, seed=args.seed, quiet=args.json)
    if kill_report is None:
        return 1
    if args.json:
        print(json.dumps(asdict(kill_report)))
    else:
        print("\n".join(kill_summary(kill_report, sys.stdout)))
    return 0 if kill_report.whole else 1


def _race(args: argparse.Namespace, out: TextIO | None) -> Facts:
    config = {"hottest": HOTTEST, "coldest": COLDEST, "moves_per_step": MOVES_PER_STEP, "seed": args.seed}
    with asynctrack.init(kill.PROJECT, config=config, dir=args.dir, collect="", mode="online") as run:
        race = Race(run.log, seconds=args.seconds, seed=args.seed)
        _run_watched(race, out)
        stats = run.finish({"best": race.best.best_length, "tour": race.best.best_tour})
    return _facts(args, race, stats, run.path)


def _run_watched(race: Race, out: TextIO | None) -> None:
    live = Live(out) if out is not None else None
    # Ctrl-C ends the race early; its records are kept and counted like any others.
    with suppress(KeyboardInterrupt):
        anyio.run(race.run, live.show if live is not None else None, REFRESH_S)
    if live is not None:
        live.clear()


def _facts(args: argparse.Namespace, race: Race, stats: asynctrack.RunStats, path: Path) -> Facts:
    times = LogTimes.of(race.times_ns)
    speed = speed_with_tracking(race.slices)
    step_us = [1e6 / part.steps_per_s for part in race.slices if part.steps]
    best = race.best
    return Facts(
        seconds=round(race.seconds, 2),
        seed=args.seed,
        steps=sum(race.steps),
        step_us=round(median(step_us), 1) if step_us else 0.0,
        accepted=stats.accepted,
        dropped=sum(stats.dropped.values()),
        found=sum(1 for _ in asynctrack.open_run(path).records()),
        log_p50_us=round(times.p50_ns / 1000, 2),
        log_p99_us=round(times.p99_ns / 1000, 2),
        log_calls_timed=times.calls,
        timer_us=times.timer_ns / 1000,
        speed_with_tracking_percent=None if speed is None else round(100 * speed, 2),
        slices=len(race.slices),
        slice_s=race.slice_s,
        best=best.best_length,
        optimum=OPTIMUM,
        above_optimum_percent=round(above_optimum_percent(best.best_length), 3),
        tour=best.best_tour,
        path=str(path),
    )


def _seconds(text: str) -> float:
    """Parse the value of `--seconds`. Its limits are arbitrary: time for a few slices, and an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected a number from 0.2 to 3600, got {text!r}")
    return seconds
