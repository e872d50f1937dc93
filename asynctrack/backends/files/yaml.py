"""YAML: a run's config, summary and metadata, in `config.yaml`, `summary.yaml` and `metadata.yaml` of its directory.

Runs on a thread of the worker.

Each file is replaced at once when it changes, and `yaml.safe_load` reads it. Nested mappings and lists stay so; NaN and
the infinities are YAML's `.nan` and `.inf`; arrays are lists. `metadata.yaml` has the run's id, name, project and
environment, when it was created, and its status. Metrics are not here: records are skipped.

    pip install 'asynctrack[yaml]'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from asynctrack.backends.base import ActionRequired, Backend, Batch, Context, Execution, Outcome, Sink
from asynctrack.backends.files.config_mirror import ConfigMirror
from asynctrack.errors import AsynctrackError
from asynctrack.journal import manifest as manifests
from asynctrack.journal.manifest import replace_file
from asynctrack.records.codec import from_json, to_json

_NOT_HERE: Final = "metrics, which YAML does not take"


class YAML(Backend, frozen=True, kw_only=True, tag="yaml"):
    """Writes the config, the summary and the metadata of a run as YAML."""

    execution: ClassVar[Execution] = "worker"
    milestones = True
    needs: ClassVar[Mapping[str, str]] = {"yaml": "asynctrack[yaml]"}

    def open(self, context: Context) -> Sink:
        """Open the files in the run's directory, and write them.

        Raises:
            ActionRequired: PyYAML is missing.
        """
        try:
            import yaml
        except ImportError as error:
            raise ActionRequired(
                f"it needs PyYAML, which is not installed here: pip install 'asynctrack[yaml]' ({error})"
            ) from error
        return _Files(context, yaml)


class _Files(Sink):
    def __init__(self, context: Context, yaml: Any) -> None:
        self._directory = context.directory
        self._yaml = yaml
        self._dumper: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
        self._written: dict[str, bytes] = {}
        self._mirror = ConfigMirror(context)
        self._run = {
            "id": context.run_id,
            "name": context.name,
            "project": context.project,
            "created_at": context.created_at,
        }
        self._write("running")

    def write(self, batch: Batch) -> dict[str, int] | None:
        if self._mirror.take(batch.updates):
            self._write("running")
        return {_NOT_HERE: len(batch.records)} if batch.records else None

    def checkpoint(self) -> dict[str, Any]:
        return self._mirror.state()

    def close(self, outcome: Outcome) -> None:
        if outcome != "stopped":
            self._write(outcome)

    def _write(self, status: str) -> None:
        self._replace("config", self._mirror.config)
        if (
            self._mirror.summary or (self._directory / "summary.yaml").exists()
        ):  # empties a file whose values were removed
            self._replace("summary", self._mirror.summary)
        self._replace("metadata", {**self._run, "status": status, "environment": _environment(self._directory)})

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        plain = from_json(content)
        text = self._yaml.dump(plain, Dumper=self._dumper, allow_unicode=True, sort_keys=False).encode()
        if self._written.get(name) != text:
            replace_file(self._directory / f"{name}.yaml", text)
            self._written[name] = text


def _environment(run: Path) -> dict[str, Any]:
    """Return interpreter, host and command from `run.json`; nothing where that cannot be read."""
    try:
        return dict(to_json(manifests.load(run).environment))
    except AsynctrackError:
        return {}
