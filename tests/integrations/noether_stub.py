"""What surrounds a tracker in Noether, as far as it can be told from outside: written from a description of its interface, with nothing of its code.

`base_modules()` are modules by the names of Noether's own, with a base class whose tracker writes its files; `Training` calls a tracker as a training does.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


class Properties:
    """Says of a key which values are better."""

    def higher_is_better(self, key: str) -> bool:
        return "accuracy" in key

    def is_neutral_key(self, key: str) -> bool:
        return key.startswith("profiling/")


class Config:
    """Settings as keyword arguments, checked against the class's annotations."""

    def __init__(self, **given: Any) -> None:
        known = {name for kind in type(self).__mro__ for name in vars(kind).get("__annotations__", {})}
        assert given.keys() <= known, given
        for name, value in given.items():
            setattr(self, name, value)

    kind: str | None = None


class Base:
    """Calls a tracker's hooks, and writes `tracker/config.yaml` and `tracker/summary.yaml`; reads `tracker/entries.th`."""

    rank = 0

    def __init__(self, metric_property_provider: Any, path_provider: Any) -> None:
        self.properties, self.paths = metric_property_provider, path_provider
        self.summary: dict[str, Any] = {}

    def init(
        self, accelerator: str, run_name: str, stage_name: str | None, stage_hp: Any, run_id: str, output_uri: str
    ) -> None:
        if self.rank == 0:
            config = {
                "run_name": run_name,
                "stage_name": stage_name or "default",
                "hp": stage_hp,
                "accelerator": accelerator,
            }
            self._write("config.yaml", config)
            self._init(config=config, output_uri=output_uri, run_id=run_id)  # type: ignore[attr-defined]  # a tracker's

    def log(self, data: Mapping[str, Any]) -> None:
        if self.rank == 0:
            self._log(data=data)  # type: ignore[attr-defined]  # a tracker's

    def set_summary(self, key: str, value: Any) -> None:
        if self.rank == 0:
            self.summary[key] = value
            self._set_summary(key=key, value=value)  # type: ignore[attr-defined]  # a tracker's

    def update_summary(self, data: Mapping[str, Any]) -> None:
        if self.rank == 0:
            self.summary.update(data)
            self._update_summary(data=data)  # type: ignore[attr-defined]  # a tracker's

    def summarize_logvalues(self) -> None:
        entries = pickle.loads((self.paths / "tracker" / "entries.th").read_bytes())
        found = {}
        for key, values in entries.items():
            if key not in ("epoch", "update", "sample") and not self.properties.is_neutral_key(key):
                name, best = ("max", max) if self.properties.higher_is_better(key) else ("min", min)
                found |= {f"{key}/{name}": best(values.values()), f"{key}/last": list(values.values())[-1]}
        self.update_summary(found)

    def close(self) -> None:
        if self.rank == 0:
            self._write("summary.yaml", self.summary)
            self._close()  # type: ignore[attr-defined]  # a tracker's

    def _write(self, file: str, content: Any) -> None:
        (self.paths / "tracker").mkdir(parents=True, exist_ok=True)
        (self.paths / "tracker" / file).write_text(yaml.safe_dump(content))


def base_modules() -> dict[str, types.ModuleType]:
    """Modules by the names of Noether's own."""
    names = [
        "noether",
        "noether.core",
        "noether.core.schemas",
        "noether.core.schemas.trackers",
        "noether.core.trackers",
    ]
    modules = {name: types.ModuleType(name) for name in names}
    modules["noether.core.schemas.trackers"].BaseTrackerConfig = Config  # type: ignore[attr-defined]  # a module of our own
    modules["noether.core.trackers"].BaseTracker = Base  # type: ignore[attr-defined]  # a module of our own
    return modules


class Training:
    """Updates that log what they measure, one dict each, which is used again afterwards; the entries are kept until the end."""

    def __init__(self, tracker: Any, output: Path, run_id: str = "2026-11-21_ab12c") -> None:
        self.tracker, self.output, self.run_id = tracker, output, run_id
        self.entries: dict[str, dict[int, float]] = {}

    def begin(self, stage: str | None = None) -> None:
        hyperparameters = {"lr": 0.1, "layers": [{"width": 4}, {"width": 8}], "blocks": [1, 2]}
        self.tracker.init("cpu", "ab-upt", stage, hyperparameters, self.run_id, str(self.output))
        self.tracker.set_summary("num_params", 1234)
        self.tracker.update_summary({"ds_stats/train/len": 100})

    def update(self, update: int, **more: Any) -> None:
        data = {"epoch": update / 10, "update": update, "sample": update * 4, **measured(update), **more}
        self.tracker.log(data)
        for key, value in data.items():
            self.entries.setdefault(key, {})[update] = value
            data[key] = None  # the tracker should have a copy

    def end(self, *, entries: bytes | None = None) -> None:
        """The end of a training that went well; `entries` is what has become of its file."""
        file = self.output / "tracker" / "entries.th"
        if entries is None:
            file.write_bytes(pickle.dumps(self.entries))
        elif entries:
            file.write_bytes(entries)
        self.tracker.summarize_logvalues()
        self.tracker.close()


def measured(update: int) -> dict[str, float]:
    """What an update measures: a loss that falls and rises, an accuracy that rises and falls."""
    return {
        "loss/train": abs(update - 5) / 10,
        "accuracy/test": 1 - abs(update - 7) / 10,
        "profiling/data_time": 0.001 * update,
    }
