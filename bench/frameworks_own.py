"""Tianshou, TROPT and Stable-Baselines3 in `bench.frameworks`: what one call of a tracker takes from the training, of each one's own and of ours.

Tianshou: `log_training_data` of 12 numbers as a collector gives them. TROPT: `log` of the 14 values of a GCG step. Stable-Baselines3: `Logger.dump` of
the 15 values of a PPO iteration. A call every 2 ms, so that what happens behind it can happen; the end of the run is timed apart.
"""

from __future__ import annotations

import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.harness import Cell, Spread, percentiles_us, spread, spreads

PAUSE_S: Final = 0.002
_COLLECTED: Final = {
    "n_collected_episodes": 1, "n_collected_steps": 10, "collect_time": 0.01, "collect_speed": 1000.0,
    "returns_stat": {"mean": 1.0, "std": 0.1, "max": 2.0, "min": 0.5}, "lens_stat": {"mean": 9.5, "std": 0.5, "max": 10, "min": 9},
}  # fmt: skip
_STEP: Final = {
    "loss": 5.5, "best_loss": 5.4, "trigger_str": "! ! ! ! describing", "loss/PrefillCELoss": 5.5,
    **{f"target_model_stats/{name}": 703 for name in ("total_tokens", "forward_calls", "forward_samples", "grad_calls", "grad_samples")},
    **{f"total_models_stats/{name}": 703 for name in ("total_tokens", "forward_calls", "forward_samples", "grad_calls", "grad_samples")},
}  # fmt: skip
_ITERATION: Final = {f"train/value_{number}": 0.1 * number for number in range(15)}


class Open(NamedTuple):
    """A tracker that is open: the call of a step, and the call that ends it."""

    step: Callable[[int], object]
    end: Callable[[], object]


Subject = tuple[str, Callable[[Path], Open]]


def tianshou_rows(calls: int, rounds: int) -> list[dict[str, Cell | Spread]]:
    """Return a row per logger; none where Tianshou is not installed."""
    try:
        from tianshou.utils import TensorboardLogger
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return []
    from asynctrack.integrations.tianshou import AsyncLogger

    def stock(folder: Path, **options: bool) -> Open:
        return _logger(TensorboardLogger(SummaryWriter(str(folder)), training_interval=1, **options))

    return _rows(
        "Tianshou",
        [
            ("TensorboardLogger", stock),
            ("TensorboardLogger(write_flush=False)", lambda folder: stock(folder, write_flush=False)),
            ("AsyncLogger", lambda folder: _logger(AsyncLogger(folder, training_interval=1))),
        ],
        calls,
        rounds,
    )


def tropt_rows(calls: int, rounds: int) -> list[dict[str, Cell | Spread]]:
    """Return a row per tracker; none where TROPT is not installed."""
    try:
        from tropt import tracker as theirs
    except ImportError:
        return []
    from asynctrack.integrations import tropt as ours

    def file(folder: Path) -> str:
        return f"{folder}/{{experiment_name}}.json"

    return _rows(
        "TROPT",
        [
            ("DictTracker", lambda folder: _tracker(theirs.DictTracker())),
            ("asynctrack's DictTracker", lambda folder: _tracker(ours.DictTracker())),
            ("JSONTracker", lambda folder: _tracker(theirs.JSONTracker(log_file_path=file(folder)))),
            ("asynctrack's JSONTracker", lambda folder: _tracker(ours.JSONTracker(log_file_path=file(folder)))),
            ("AsyncTracker", lambda folder: _tracker(ours.AsyncTracker(dir=folder))),
        ],
        calls,
        rounds,
    )


def stable_baselines3_rows(calls: int, rounds: int) -> list[dict[str, Cell | Spread]]:
    """Return a row per output; none where Stable-Baselines3 is not installed."""
    try:
        from stable_baselines3.common.logger import Logger, make_output_format
    except ImportError:
        return []
    from asynctrack.integrations.stable_baselines3 import AsyncWriter

    def stock(kind: str) -> Callable[[Path], Open]:
        return lambda folder: _output(Logger(str(folder), [make_output_format(kind, str(folder))]))

    names = [(f"{kind} output", stock(kind)) for kind in ("tensorboard", "csv", "json")]
    ours = ("AsyncWriter", lambda folder: _output(Logger(None, [AsyncWriter("bench", dir=folder)])))
    return _rows("Stable-Baselines3", [*names, ours], calls, rounds)


def _logger(logger: Any) -> Open:
    return Open(lambda step: logger.log_training_data(_COLLECTED, step), logger.finalize)


def _tracker(tracker: Any) -> Open:
    tracker.init({"lr": 0.1})
    return Open(lambda step: tracker.log(dict(_STEP)), lambda: tracker.finish({"best_loss": 5.4}))


def _output(logger: Any) -> Open:
    def dump(step: int) -> None:
        logger.name_to_value.update(_ITERATION)
        logger.name_to_excluded.update(dict.fromkeys(_ITERATION))
        logger.dump(step)

    return Open(dump, logger.close)


def _rows(framework: str, subjects: list[Subject], calls: int, rounds: int) -> list[dict[str, Cell | Spread]]:
    """Return a row per subject; the rounds of all are taken in turns, so that the machine's state is the same for all."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name, _ in subjects}
    ends: dict[str, list[float]] = {name: [] for name, _ in subjects}
    for _ in range(rounds):
        for name, make in subjects:
            with tempfile.TemporaryDirectory(prefix="asynctrack-bench-") as folder:
                subject = make(Path(folder))
                found[name].append(_timed(subject.step, calls))
                began = time.perf_counter()
                subject.end()
                ends[name].append(1000 * (time.perf_counter() - began))
    return [
        {"framework": framework, "tracker": name, **spreads(figures, " us"), "end ms": spread(ends[name])}
        for name, figures in found.items()
    ]


def _timed(call: Callable[[int], object], calls: int) -> dict[str, float]:
    """Return percentiles of a call."""
    took = array("q", bytes(8 * calls))
    for at in range(calls):
        began = time.perf_counter_ns()
        call(at)
        took[at] = time.perf_counter_ns() - began
        time.sleep(PAUSE_S)
    return percentiles_us(took, 0.0)
