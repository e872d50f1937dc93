"""Borrowed: what W&B's runs have by other names than ours, or that ours do not need, so that scripts for W&B run unchanged. Runs in the caller."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asynctrack._system import messages
from asynctrack.wandb_api.unsupported import unsupported

if TYPE_CHECKING:
    from asynctrack.records.values import Artifact

# Under this name of its config a run has what `define_metric` was told; W&B keeps it in its own `_wandb`, too.
WANDB: Final = "_wandb"


class Borrowed:
    """The base of `Run`.

    Attributes:
        labels: what names the run beside its name: "entity", "group", "job_type", "notes" and "tags", where it has them.
    """

    name: str
    path: Path
    config: Any
    summary: Any
    labels: Mapping[str, Any]
    resumed = False
    sweep_id = None
    url = None

    @property
    def dir(self) -> str:
        """The run's directory: what a script writes there stays with the run."""
        return str(self.path)

    @property
    def entity(self) -> str | None:
        return self.labels.get("entity")

    @property
    def group(self) -> str | None:
        return self.labels.get("group")

    @property
    def job_type(self) -> str | None:
        return self.labels.get("job_type")

    @property
    def notes(self) -> str | None:
        return self.labels.get("notes")

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(self.labels.get("tags", ()))

    def get_url(self) -> None:
        """None: there is no page."""

    def define_metric(
        self,
        name: str,
        step_metric: str | None = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        goal: str | None = None,
        overwrite: bool | None = None,
    ) -> None:
        """Note how W&B is to show a metric, for the W&B backend; and, with `summary` "min", "max", "mean" or "first", what `run.summary[name]` is.

        Args:
            name: of the metric, or a pattern with `*` at its end.
            step_metric: what its x-axis is.
            step_sync: ignored: each record has its step.
            hidden: whether W&B hides it.
            summary: of all its values.
            goal: "minimize" or "maximize".
            overwrite: forget what was noted before.
        """
        told = {"step_metric": step_metric, "hidden": hidden, "summary": summary, "goal": goal}
        metrics = dict(self.config.get(WANDB, {}).get("metrics", {}))
        before = {} if overwrite else metrics.get(str(name), {})
        metrics[str(name)] = {**before, **{key: value for key, value in told.items() if value is not None}}
        self.config[WANDB] = {**self.config.get(WANDB, {}), "metrics": metrics}

    def log_artifact(
        self,
        artifact_or_path: Artifact | str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Artifact:
        """Keep an artifact with the run: in its summary, as `artifacts/NAME`, and its files under `media/artifacts/`.

        Args:
            artifact_or_path: an artifact, or the file or folder that it consists of.
            name: of an artifact that is a path. Default: that of the file.
            type: of an artifact that is a path.
            aliases: for people.
            tags: for people.

        Raises:
            InvalidValue: there is no such file or folder.
        """
        from asynctrack.records.values import Artifact

        artifact = artifact_or_path
        if not isinstance(artifact, Artifact):
            path = Path(artifact)
            artifact = Artifact(name or path.name, type=type or "file", path=path)
        told = {name: list(given) for name, given in {"aliases": aliases, "tags": tags}.items() if given}
        artifact.metadata.update(told)
        self.summary[f"artifacts/{artifact.name}"] = artifact
        return artifact

    def save(
        self,
        glob_str: str | os.PathLike[str] | None = None,
        base_path: str | os.PathLike[str] | None = None,
        policy: str = "live",
    ) -> list[str]:
        """Keep files with the run, as they are now, as artifacts of the type "saved".

        Args:
            glob_str: a path, in which `*` may stand for names.
            base_path: the names of the files begin below it. Default: they are their last parts.
            policy: ignored: what changes later is saved by another call.

        Returns:
            The paths of the files that were found.
        """
        import glob

        from asynctrack.records.values import Artifact

        found = sorted(path for path in glob.glob(os.fspath(glob_str or "")) if os.path.isfile(path))
        for path in found:
            name = os.path.relpath(path, base_path) if base_path else os.path.basename(path)
            self.log_artifact(Artifact(name, type="saved", path=path))
        return found

    def alert(self, title: str, text: str = "", level: object = None, wait_duration: object = None) -> None:
        """Say something to people: in the log of this process, as a warning. Nobody is written to."""
        unsupported("alert()", "what it says is only logged")
        messages.say(f"asynctrack: alert: {title}" + (f": {text}" if text else ""))

    def mark_preempting(self) -> None:
        """`mark_preempted`, as W&B calls it."""
        self.mark_preempted()

    def mark_preempted(self) -> None:
        raise NotImplementedError

    def watch(self, models: object = None, *args: object, **kwargs: object) -> tuple[()]:
        """Not supported: log the gradients that you want to see, as arrays or `Histogram`s."""
        unsupported("watch()", "log gradients as arrays or asynctrack.Histogram")
        return ()

    def unwatch(self, models: object = None) -> None:
        """Nothing: nothing is watched."""

    def log_code(self, *args: object, **kwargs: object) -> None:
        """Not supported: log a folder as an `Artifact`."""
        unsupported("log_code()", "log a folder with log_artifact()")

    def log_model(
        self, path: str | os.PathLike[str], name: str | None = None, aliases: Sequence[str] | None = None
    ) -> Artifact:
        """`log_artifact` of the type "model"."""
        return self.log_artifact(path, name, "model", aliases)

    def use_artifact(self, artifact_or_name: Any, *args: object, **kwargs: object) -> Any:
        """Not supported: nothing is fetched; an artifact is given back."""
        unsupported("use_artifact()", "nothing is fetched")
        return artifact_or_name

    def link_artifact(self, artifact: Any, *args: object, **kwargs: object) -> Any:
        """Not supported."""
        unsupported("link_artifact()")
        return artifact
