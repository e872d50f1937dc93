"""Settings: W&B's names for them.

Those that mean something here become arguments of `init`; the others are ignored with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asynctrack import Settings as OwnSettings
from asynctrack.wandb.notices import warn_unsupported

# W&B's names of settings, and the arguments of `init` that they become.
_ARGUMENTS: Final = {
    "anonymous": "anonymous",
    "entity": "entity",
    "mode": "mode",
    "project": "project",
    "reinit": "reinit",
    "resume": "resume",
    "root_dir": "dir",
    "run_group": "group",
    "run_id": "id",
    "run_job_type": "job_type",
    "run_name": "name",
    "run_notes": "notes",
    "run_tags": "tags",
    "silent": "silent",
    "quiet": "silent",
    "sync_tensorboard": "sync_tensorboard",
    "x_label": "x_label",
    "x_primary": "x_primary",
    "x_primary_node": "x_primary",
    "x_update_finish_state": "x_update_finish_state",
}
# Settings of W&B's own process, network and server, beside those that begin with an underscore or `x_`.
_WITHOUT_MEANING: Final = frozenset(
    """
    allow_media_symlink allow_offline_artifacts allow_val_change api_key app_url_override base_url capture_loggers code_dir
    config_paths console console_chunk_max_bytes console_chunk_max_seconds console_multipart credentials_file disable_code disable_git
    disable_job_creation docker email finish_timeout finish_timeout_raises force fork_from git_commit git_remote git_remote_url
    git_root heartbeat_seconds host http_proxy https_proxy identity_token_file ignore_globs init_timeout insecure_disable_ssl job_name
    job_source label_disable launch launch_config_path login_timeout notebook_name organization program program_abspath
    program_relpath relogin resume_from sagemaker_disable save_code settings_system show_colors show_emoji show_errors show_info
    show_warnings start_method stop_fn stop_on_fatal_error strict summary_timeout summary_warnings sweep_id sweep_param_path symlink
    table_raise_on_max_row_limit_exceeded username
    """.split()  # noqa: SIM905  # a list of strings would take a page
)
_OWN: Final = frozenset(OwnSettings.__struct_fields__)


class Settings:
    """Holds settings for `init`: W&B's, and those of `asynctrack.Settings`.

    Args:
        given: settings by name.

    Raises:
        TypeError: neither W&B nor asynctrack has such a setting.
    """

    def __init__(self, **given: Any) -> None:
        if strange := [name for name in given if not (_is_of_wandb(name) or name in _OWN)]:
            raise TypeError(f"neither W&B nor asynctrack has a setting {strange[0]!r}")
        warn_unsupported("Settings", {name: value for name, value in given.items() if not _has_meaning(name)})
        self.__dict__.update(given)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __getattr__(self, name: str) -> Any:
        if _is_of_wandb(name) and not name.startswith("__"):
            return None
        raise AttributeError(name)

    def arguments(self) -> dict[str, Any]:
        """Return the settings as arguments of `init`."""
        return {_ARGUMENTS.get(name, name): value for name, value in vars(self).items() if _has_meaning(name)}


def arguments_of(settings: Settings | OwnSettings | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return settings of any kind as arguments of `init`."""
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        settings = Settings(**settings)
    if isinstance(settings, Settings):
        return settings.arguments()
    defaults = OwnSettings()
    return {name: value for name in _OWN if (value := getattr(settings, name)) != getattr(defaults, name)}


def _has_meaning(name: str) -> bool:
    return name in _ARGUMENTS or name in _OWN


def _is_of_wandb(name: str) -> bool:
    return name in _ARGUMENTS or name in _WITHOUT_MEANING or name.startswith(("_", "x_"))
