"""Noether's tracker interface, for tests and trainers where Noether is not installed. Runs in the caller.

It is written from a description of the interface: the methods, the moments at which they are called, and the files that
they leave.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from asynctrack.integrations.ranks import distributed


class BaseTrackerConfig(msgspec.Struct, kw_only=True):
    """Holds the settings that every tracker has.

    Attributes:
        kind: dotted path of the tracker's class.
    """

    kind: str | None = None


class BaseTracker:
    """Has the methods that a trainer calls. On other ranks than 0 they do nothing.

    Args:
        metric_property_provider: tells of a key whether a higher value is better.
        path_provider: not used here.

    Attributes:
        summary: values for the training as a whole.
    """

    def __init__(self, metric_property_provider: Any = None, path_provider: Any = None) -> None:
        self.summary: dict[str, Any] = {}
        self._folder = Path()

    def init(
        self,
        accelerator: str,
        run_name: str,
        stage_name: str | None,
        stage_hp: Mapping[str, Any],
        run_id: str,
        output_uri: str,
    ) -> None:
        """Begin a stage: write `tracker/config.yaml` to its output directory, and open the run.

        Args:
            accelerator: name of the hardware, for the config.
            run_name: for people.
            stage_name: of the stage; None for "default".
            stage_hp: its hyperparameters.
            run_id: of the run.
            output_uri: its output directory.
        """
        if not _is_rank_0():
            return
        config = {
            "run_name": run_name,
            "stage_name": stage_name or "default",
            "hp": _with_dicts(stage_hp),
            "accelerator": accelerator,
            "dist/world_size": _world_size(),
            "dist/hostname": socket.gethostname(),
            **({"dist/jobid": job} if (job := os.environ.get("SLURM_JOB_ID")) else {}),
        }
        self._folder = Path(output_uri, "tracker")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._dump("config.yaml", config)
        self._init(config=config, output_uri=output_uri, run_id=run_id)

    def log(self, data: Mapping[str, Any]) -> None:
        """Record the values of one update of the training.

        Args:
            data: names to values.
        """
        if _is_rank_0():
            self._log(data=data)

    def set_summary(self, key: str, value: Any) -> None:
        """Set one value for the training as a whole.

        Args:
            key: its name.
            value: as YAML can hold it.
        """
        if _is_rank_0():
            self.summary[key] = value
            self._set_summary(key=key, value=value)

    def update_summary(self, data: Mapping[str, Any]) -> None:
        """Set several values for the training as a whole.

        Args:
            data: names to values.
        """
        if _is_rank_0():
            self.summary.update(data)
            self._update_summary(data=data)

    def close(self) -> None:
        """End the stage: write `tracker/summary.yaml`, and finish the run."""
        if _is_rank_0():
            self._dump("summary.yaml", self.summary)
            self._close()

    def _init(self, config: Mapping[str, Any], output_uri: str, run_id: str) -> None:
        raise NotImplementedError

    def _log(self, data: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _set_summary(self, key: str, value: Any) -> None:
        raise NotImplementedError

    def _update_summary(self, data: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _dump(self, file: str, content: Mapping[str, Any]) -> None:
        import yaml

        (self._folder / file).write_text(yaml.safe_dump(content))


def _with_dicts(value: Any) -> Any:
    """Replace lists by dicts, so that each item has a name: {"0": ...}. A list inside of another list stays one."""
    if isinstance(value, list | tuple):
        value = {str(at): item for at, item in enumerate(value)}
        return {key: _with_dicts(item) if isinstance(item, Mapping) else item for key, item in value.items()}
    if isinstance(value, Mapping):
        return {str(key): _with_dicts(item) for key, item in value.items()}
    return value


def _is_rank_0() -> bool:
    group = distributed()
    return group is None or group.get_rank() == 0


def _world_size() -> int:
    group = distributed()
    return 1 if group is None else int(group.get_world_size())
