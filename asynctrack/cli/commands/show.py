"""`asynctrack show`: one run in detail. Reads its journal once, in memory that does not grow with it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from asynctrack._system.wording import counted
from asynctrack.cli import options, output
from asynctrack.cli.curves import read_curves
from asynctrack.cli.hosts import show_hosts
from asynctrack.cli.media_counts import media_as_json, show_media
from asynctrack.cli.output import STATE_STYLES, Output, Piece, Styled, TableColumn
from asynctrack.cli.provenance import as_document, print_environment, print_traceback
from asynctrack.cli.run_facts import labels_as_json, pairs, show_facts
from asynctrack.cli.sparklines import Sparkline, Sparklines
from asynctrack.cli.writers import add_writer, describe_writers, print_writers
from asynctrack.client.run_state import RunActivity, State, activity_of, state_of
from asynctrack.collection.backend_standing import backend_standing, stats_of_run
from asynctrack.collection.run_summary import seconds_between
from asynctrack.journal.environment_file import Environment
from asynctrack.journal.manifest import Manifest
from asynctrack.journal.reader import Damage
from asynctrack.reading.reader import RunReader
from asynctrack.reading.stats import RunStats
from asynctrack.reading.writer_filter import WriterFilter
from asynctrack.records.codec import flatten

# Limits of the display without options; --json has everything.
_MOST_METRICS: Final = 20
_MOST_SETTINGS: Final = 30
# Characters of a curve.
_LONGEST_CURVE: Final = 48
_SHORTEST_CURVE: Final = 12
# Of a line of metrics: the indentation, the gaps, and the count of values.
_BLANKS: Final = 2 + 5 * 2 + 6
# Of a backend that no process delivers to.
_WAITS: Final = "waits for `asynctrack sync`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `main` to `parser`."""
    options.add_run(parser)
    options.add_keys(parser, "metrics to show, separated by commas")
    add_writer(parser, "show only metrics that this writer has logged")
    options.add_history(parser)
    parser.add_argument(
        "--hosts",
        action="store_true",
        help="show the machines of a run that was merged: what is there of each, when it was heard last, and how far behind it is",
    )
    options.add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Show a run. Return 2 if it has no such writer, or no hosts."""
    run = options.find(args)
    if args.hosts:
        return _show_hosts(run, as_json=args.json)
    chosen = WriterFilter(run, args.writer)
    if (problem := chosen.problem()) is not None:
        output.warn(problem)
        return 2
    reader = RunReader(run)
    manifest, writers = reader.manifest(), reader.writers
    state, activity = state_of(run, manifest), activity_of(run)
    stats = stats_of_run(activity, manifest)
    backends = {name: backend_standing(run, name, manifest, stats) for name in manifest.backends}
    if args.json:
        found = read_curves(reader, args.writer, args.history)
        document = _document(
            run, manifest, reader.environment, state, activity, stats, backends, found.curves, found.damage, args.keys
        )
        lists = {
            "writers": msgspec.to_builtins(writers),
            "hosts": msgspec.to_builtins(manifest.hosts),
            "history": args.history,
            "left_out": {"rows": found.left_out.rows, "values": found.left_out.values},
            "media": media_as_json(found.media),
        }
        output.print_json({**document, **lists})
        return 0
    out = Output()
    ended = manifest.status != "running"
    show_facts(out, run, manifest, state, activity, describe_writers(manifest.writers, ended=ended))
    _print_settings(out, "config", manifest.config)
    _print_settings(out, "summary", manifest.summary)
    print_traceback(out, manifest.traceback)
    print_environment(out, reader.environment)
    _print_stats(out, stats)
    print_writers(out, writers, ended=ended)
    _print_backends(out, backends, served=activity.is_active)
    found = read_curves(reader, args.writer, args.history)
    _print_metrics(out, found.curves, args.keys)
    if any(found.left_out):
        out.line(Styled(options.describe_left_out(found.left_out, "shows"), "dim"), indent=2)
    show_media(out, found.media)
    _print_damage(out, found.damage)
    return 0


def _show_hosts(run: Path, *, as_json: bool) -> int:
    manifest = RunReader(run).manifest()
    if not manifest.hosts:
        output.warn(f"{run} was not merged of the parts of several machines: it has no hosts")
        return 2
    show_hosts(run, manifest, state_of(run, manifest), as_json=as_json)
    return 0


def _document(
    run: Path,
    manifest: Manifest,
    environment: Environment | None,
    state: State,
    activity: RunActivity,
    stats: RunStats,
    backends: dict[str, Any],
    curves: Sparklines,
    damage: list[Damage],
    keys: options.KeyFilter | None,
) -> dict[str, Any]:
    """Build the document that `--json` prints."""
    return {
        "path": str(run),
        "project": manifest.project,
        "id": manifest.id,
        "name": manifest.name,
        **labels_as_json(manifest.labels),
        "status": state,
        "error": manifest.error,
        "traceback": manifest.traceback,
        "failed_children": manifest.failed_children,
        "created_at": manifest.created_at,
        "ended_at": manifest.ended_at,
        "callers": activity.callers,
        "worker": activity.worker,
        "environment": as_document(manifest.environment, environment),
        "config": manifest.config,
        "summary": manifest.summary,
        "checkpoint": manifest.checkpoint,
        "stats": {
            "offered": stats.offered,
            "accepted": stats.accepted,
            "journaled": stats.journaled,
            "queued": stats.queued,
            "dropped": stats.dropped,
        },
        "backends": backends,
        "metrics": _metrics(curves, keys),
        "damage": [str(stretch) for stretch in damage],
    }


def _metrics(curves: Sparklines, keys: options.KeyFilter | None) -> dict[str, Any]:
    chosen = _chosen(curves, keys)
    courses = curves.courses(chosen, _LONGEST_CURVE)
    return {
        key: {"count": of.count, "min": of.low, "last": of.last, "max": of.high, "course": courses[key]}
        for key, of in chosen.items()
    }


def _print_settings(out: Output, title: str, data: dict[str, Any]) -> None:
    """Print a config or a summary."""
    settings = list(flatten(data))
    if not settings:
        return
    out.heading(title)
    rows: list[list[Piece]] = [
        [Styled(key, "dim"), output.brief(value, 200)] for key, value in settings[:_MOST_SETTINGS]
    ]
    out.table([TableColumn(), TableColumn(cut=True)], rows, indent=2, titles=False)
    _print_rest(out, len(settings) - _MOST_SETTINGS, "--json")


def _print_stats(out: Output, stats: RunStats) -> None:
    out.heading("records")
    counts = {
        "offered": stats.offered,
        "accepted": stats.accepted,
        "journaled": stats.journaled,
        "queued": stats.queued,
    }
    counts["dropped"] = sum(stats.dropped.values())
    counts |= {f"  {reason}": dropped for reason, dropped in stats.dropped.items()}
    columns = [TableColumn(name, right=True) for name in counts]
    out.table(columns, [[_count(name, counts[name]) for name in counts]], indent=2)


def _count(name: str, count: int) -> Piece:
    wrong = count and name in ("dropped", "rejected")
    return Styled(output.count(count), "bold red" if wrong else "")


def _print_backends(out: Output, backends: dict[str, dict[str, Any]], *, served: bool) -> None:
    if not backends:
        return
    out.heading("backends")
    numbers = ("delivered", "behind", "skipped", "rejected")
    columns = [
        TableColumn(),
        *(TableColumn(name, right=True) for name in numbers),
        TableColumn("rate", right=True),
        TableColumn("", cut=True),
    ]
    rows: list[list[Piece]] = []
    for name, backend in backends.items():
        counts = {**backend, "skipped": sum(backend["skipped"].values())}
        row = [_count(number, counts[number]) if backend["known"] else "-" for number in numbers]
        rows.append(
            [Styled(name, "dim"), *row, output.rate(backend["records_per_s"]), _standing(backend, served=served)]
        )
    out.table(columns, rows, indent=2)
    for name, backend in backends.items():
        if len(backend["skipped"]):
            out.line(Styled(f"{name} skipped: {pairs(backend['skipped'])}", "dim"), indent=2)
        if backend["last_error"]:
            out.line(Styled(f"{name}: {backend['last_error']}", "red"), indent=2)


def _standing(backend: dict[str, Any], *, served: bool) -> Piece:
    """Describe in a few words how a backend is doing, which depends on whether a process works on the run."""
    if not backend["known"]:
        return Styled("private to who ran it", "dim")
    if backend["paused"]:
        return Styled("paused until you fix it", "bold red")
    if backend["last_error"]:
        left_s = seconds_between(datetime.now(UTC).isoformat(), backend["next_try_at"] or "")
        soon = "" if left_s is None else f", again in {output.duration(max(0, round(left_s)))}"
        soon = soon if served else f", {_WAITS}"
        return Styled(f"failed {counted(backend['retries'], 'time')}{soon}", "red")
    if not (served or backend["closed"]):
        return Styled(_WAITS, "yellow")
    retries = f", {counted(backend['retries'], 'try', 'tries')} failed" if backend["retries"] else ""
    return Styled(("has all" if backend["closed"] else "works") + retries, "dim")


def _print_damage(out: Output, damage: list[Damage]) -> None:
    if damage:
        out.heading("damaged: records may be missing from what is shown")
    for stretch in damage:
        out.line(Styled(str(stretch), STATE_STYLES["damaged"]), indent=2)


def _chosen(curves: Sparklines, keys: options.KeyFilter | None) -> dict[str, Sparkline]:
    chosen = {key: curve for key, curve in curves.by_key.items() if keys is None or key in keys}
    if keys is not None and not curves.is_full:
        keys.tell_unknown("metric")
    return chosen


def _print_metrics(out: Output, curves: Sparklines, keys: options.KeyFilter | None) -> None:
    chosen = _chosen(curves, keys)
    if not chosen:
        return
    out.heading("metrics")
    shown = dict(list(chosen.items())[: len(chosen) if keys is not None else _MOST_METRICS])
    numbers = {
        key: [output.number(value) for value in (curve.low, curve.last, curve.high)] for key, curve in shown.items()
    }
    length = _LONGEST_CURVE
    if out.width is not None:
        beside = max(map(output.width_of, shown)) + sum(max(map(len, of)) for of in zip(*numbers.values(), strict=True))
        length = max(_SHORTEST_CURVE, min(length, out.width - beside - _BLANKS))
    rows: list[list[Piece]] = []
    courses = curves.courses(shown, length)
    for key, curve in shown.items():
        low, last, high = numbers[key]
        line = Styled(out.spark(courses[key]), "cyan")
        rows.append([key, line, low, Styled(last, "bold"), high, output.short_count(curve.count)])
    columns = [
        TableColumn(cut=True),
        TableColumn(),
        *(TableColumn(title, right=True) for title in ("min", "last", "max")),
    ]
    out.table([*columns, TableColumn("values", right=True, rank=1)], rows, indent=2)
    _print_rest(out, len(chosen) - len(shown), "--keys '*'")
    if curves.is_full:
        out.line(
            Styled(f"and metrics that came later: the first {output.count(len(curves.by_key))} are kept", "dim"),
            indent=2,
        )


def _print_rest(out: Output, more: int, option: str) -> None:
    if more > 0:
        out.line(Styled(f"and {output.count(more)} more: {option} shows them", "dim"), indent=2)
