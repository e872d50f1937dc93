"""Noether's tracker interface where Noether is not there, for tests and for trainers that speak it. Runs in the caller.

Written from a description of the interface: which method is called when, and which files it leaves.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec


class BaseTrackerConfig(msgspec.Struct, kw_only=True):
    """What every tracker's settings have.

    Attributes:
        kind: dotted path of the tracker's class.
    """

    kind: str | None = None


class BaseTracker:
    """What a trainer calls. On ranks but 0 nothing happens.

    Args:
        metric_property_provider: says of a key whether a higher value is better.
        path_provider: not used here.

    Attributes:
        summary: what was set for the training as a whole.
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
        """A stage begins: `tracker/config.yaml` of its output directory is written, and the run opened."""
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
        """What an update of the training has measured."""
        if _is_rank_0():
            self._log(data=data)

    def set_summary(self, key: str, value: Any) -> None:
        """Set one thing of the training as a whole."""
        if _is_rank_0():
            self.summary[key] = value
            self._set_summary(key=key, value=value)

    def update_summary(self, data: Mapping[str, Any]) -> None:
        """Set several."""
        if _is_rank_0():
            self.summary.update(data)
            self._update_summary(data=data)

    def close(self) -> None:
        """The stage has ended: `tracker/summary.yaml` is written, and the run finished."""
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
    """With dicts in place of lists, so that each item has a name: {"0": ...}. A list that is an item of another stays one."""
    if isinstance(value, list | tuple):
        value = {str(at): item for at, item in enumerate(value)}
        return {key: _with_dicts(item) if isinstance(item, Mapping) else item for key, item in value.items()}
    if isinstance(value, Mapping):
        return {str(key): _with_dicts(item) for key, item in value.items()}
    return value


def _is_rank_0() -> bool:
    distributed = _distributed()
    return distributed is None or distributed.get_rank() == 0


def _world_size() -> int:
    distributed = _distributed()
    return 1 if distributed is None else int(distributed.get_world_size())


def _distributed() -> Any:
    """torch.distributed where it is in use, None elsewhere."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return (
        distributed if distributed is not None and distributed.is_available() and distributed.is_initialized() else None
    )
