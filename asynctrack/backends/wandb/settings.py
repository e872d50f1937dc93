"""W&B's settings: declare and check what a user may choose of the backend.

Runs in the caller and where the sink does.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

import msgspec

from asynctrack._system.descendants import start_time
from asynctrack.backends.base import Backend, Context, Execution, WriterSelection
from asynctrack.backends.endpoint import url_problems
from asynctrack.backends.wandb.aggregates import kinds_of
from asynctrack.errors import InvalidSettings

Mode = Literal["online", "offline", "disabled"]

_ADDRESS: Final = "https://api.wandb.ai"
_MODES: Final = ("online", "offline", "disabled")
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9_.-]")
_RESUMES: Final = ("allow", "must", "never")
_AGGREGATES: Final = frozenset({"min", "max", "mean", "first", "last", "none"})
# Settings of the SDK that are fields here, or would break a promise of the backend.
_OURS: Final = frozenset({
    "run_id", "mode", "project", "entity", "run_name", "run_group", "run_job_type", "run_tags", "run_notes", "base_url",
    "reinit", "resume", "resume_from", "fork_from", "x_primary", "x_label", "x_update_finish_state", "x_stats_pid",
    "sync_tensorboard",
})  # fmt: skip
# Settings of the SDK that may hold a key.
_SECRET: Final = frozenset({
    "api_key", "x_extra_http_headers", "azure_account_url_to_access_key", "x_stats_open_metrics_http_headers",
    "x_proxies", "http_proxy", "https_proxy",
})  # fmt: skip


class WandBSettings(Backend, frozen=True, kw_only=True):
    """Settings of the W&B backend, checked.

    Attributes:
        project: of W&B. Default: the environment's `WANDB_PROJECT`, else the run's.
        entity: user or team. Default: the run's own, the environment's `WANDB_ENTITY`, else the key's.
        name: of the W&B run. Default: the run's name. A name, tags or notes that are changed at W&B later stay so.
        id: of the W&B run. Default: the run's.
        group: of runs, as W&B has it. Default of this and the three below: the run's own.
        job_type: as W&B has it.
        tags: of the W&B run, 1 to 64 characters each.
        notes: of the W&B run.
        mode: "online"; "offline" writes W&B's own files into `wandb/` in the run's directory, for `wandb sync`;
            "disabled" shows nothing. The environment's `WANDB_MODE` replaces "online". To log offline and send later
            without W&B's files, open the run itself with `mode="offline"`.
        resume: what to do where W&B has a run with this id that is not this one: "allow" adds to it, "never" pauses,
            "must" pauses where there is none.
        metrics: arguments of `define_metric`, by metric: `{"val/loss": {"summary": "min,max", "step_metric":
            "epoch"}}`. They replace those of `Run.define_metric`. A name may end in `*`. Aggregates are over all rows,
            also where the run was interrupted.
        system_stats: whether W&B gets the processor, memory and GPU statistics of the process that logs, while it
            lives.
        base_url: of the server. Default: the environment's `WANDB_BASE_URL`, else W&B's cloud.
        settings: of the SDK, as `wandb.Settings` takes them: for the rare case.
        watched: pid and start time of the process that logs; filled in when the run opens.
    """

    execution: ClassVar[Execution] = "process"
    can_split: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = True
    needs: ClassVar[Mapping[str, str]] = {"wandb": "asynctrack[wandb]"}
    # W&B limits how often a run sends.
    batch_age_s: ClassVar[float] = 5.0
    batch_bytes: ClassVar[int] = 512 * 1024

    project: str | None = None
    entity: str | None = None
    name: str | None = None
    id: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    mode: Mode = "online"
    resume: Literal["allow", "must", "never"] = "allow"
    metrics: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    system_stats: bool = False
    base_url: str | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    watched: tuple[int, str] | None = None
    writers: WriterSelection = "owner"

    @property
    def remote(self) -> bool:  # type: ignore[override]  # of the class elsewhere
        """Return whether the mode is "online"."""
        return self.mode == "online"

    def __post_init__(self) -> None:
        tags: object = self.tags
        if isinstance(tags, list):
            msgspec.structs.force_setattr(self, "tags", tuple(tags))
        if problems := [*self._text_problems(), *self._choice_problems(), *self._settings_problems()]:
            raise InvalidSettings(problems)
        super().__post_init__()

    def prepare(self) -> Backend:
        """Fill in settings from the environment."""
        mode = os.environ.get("WANDB_MODE", "")
        return msgspec.structs.replace(
            self,
            project=self.project or os.environ.get("WANDB_PROJECT") or None,
            entity=self.entity or os.environ.get("WANDB_ENTITY") or None,
            base_url=self.base_url or os.environ.get("WANDB_BASE_URL") or None,
            mode=mode if self.mode == "online" and mode in _MODES else self.mode,
            watched=(os.getpid(), start_time(os.getpid())) if self.system_stats else None,
        )

    def lacking(self) -> list[str]:
        """List what is missing: the library, or a key."""
        if self.mode == "disabled":
            return []
        from asynctrack.backends.wandb.core import MEND_KEY

        return super().lacking() or (
            [] if self.mode == "offline" or _may_have_key(self.base_url) else [f"it has no key: {MEND_KEY}"]
        )

    def external_targets(self) -> list[str]:
        """List the server's address in mode "online"."""
        return [self.base_url or _ADDRESS] if self.mode == "online" else []

    def of_writer(self, context: Context) -> Self:
        """Return the settings of one writer's W&B run, with `writers="split"`: its own id and name, in the group of all."""
        if self.writers != "split":
            return self
        group, run_id = (
            self.group or context.labels.get("group") or self.id or context.run_id,
            self.id or context.run_id,
        )
        if context.writer is None:
            return msgspec.structs.replace(self, group=group)
        return msgspec.structs.replace(
            self,
            group=group,
            id=f"{run_id}-{_as_id(context.writer)}",
            name=f"{self.name or context.name} {context.writer}",
            watched=None,
        )

    def aggregates(self) -> dict[str, list[str]]:
        """Return the aggregates that `metrics` asks for, by metric."""
        return {name: kinds_of(facts["summary"]) for name, facts in self.metrics.items() if facts.get("summary")}

    def watched_pid(self) -> int | None:
        """Return the pid of the process that logs, if its statistics are wanted and it lives."""
        if self.watched is None or start_time(self.watched[0]) != self.watched[1]:
            return None
        return self.watched[0]

    def _text_problems(self) -> list[str]:
        texts = {
            name: getattr(self, name) for name in ("project", "entity", "name", "id", "group", "job_type", "notes")
        }
        problems = [
            f"{name} must be text; got {value!r:.80}"
            for name, value in texts.items()
            if value is not None and (not isinstance(value, str) or not value.strip())
        ]
        if isinstance(self.id, str) and (odd := [sign for sign in "/\\#?%:" if sign in self.id]):
            problems.append(f"id cannot have {' '.join(odd)}, which W&B does not take; got {self.id!r:.80}")
        if not isinstance(self.tags, tuple) or not all(
            isinstance(tag, str) and 0 < len(tag) <= 64 for tag in self.tags
        ):
            problems.append(f"tags must be texts of 1 to 64 characters; got {self.tags!r:.80}")
        if self.base_url is not None:
            problems += url_problems("base_url", self.base_url)
        return problems

    def _choice_problems(self) -> list[str]:
        choices = {"mode": (self.mode, _MODES), "resume": (self.resume, _RESUMES)}
        return [
            f"{name} must be one of {', '.join(known)}; got {value!r:.80}"
            for name, (value, known) in choices.items()
            if value not in known
        ]

    def _settings_problems(self) -> list[str]:
        problems = []
        for name, given in {"metrics": self.metrics, "settings": self.settings}.items():
            if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
                return [f"{name} must be a dict with names as keys; got {given!r:.80}"]
        for name, facts in self.metrics.items():
            if not isinstance(facts, Mapping) or not _AGGREGATES.issuperset(kinds_of(facts.get("summary"))):
                problems.append(f"metrics[{name!r}] must have arguments of define_metric; got {facts!r:.80}")
        if secret := sorted(_SECRET & self.settings.keys()):
            problems.append(
                f"settings must not have {', '.join(secret)}, which may hold a key: they are stored in run.json; set it in the environment"
            )
        if ours := sorted(_OURS & self.settings.keys()):
            problems.append(f"settings must not have {', '.join(ours)}: use WandB's own field, or leave it to WandB")
        return problems


def _as_id(writer: str) -> str:
    """Return a label as a part of a W&B id, which cannot have a colon."""
    clean = _UNUSUAL.sub("_", writer)
    return clean if clean == writer else f"{clean}-{zlib.crc32(writer.encode()):08x}"


def _may_have_key(address: str | None) -> bool:
    """Return whether the SDK may find a key, in the environment or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(address or _ADDRESS).hostname or ""
    texts = [_text(os.path.expanduser(path)) for path in (os.environ.get("NETRC") or "~/.netrc", "~/_netrc")]
    return any(host in text or "default" in text for text in texts)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
