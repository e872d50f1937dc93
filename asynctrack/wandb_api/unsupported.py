"""Unsupported: what of W&B's is not there is said by its name, once in a process. Runs in the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asynctrack._system import messages

# Of `wandb.Settings`, beside those that begin with an underscore or `x_`: they are about its own process, its network and its server.
WANDB_SETTINGS: Final = frozenset(
    """
    allow_media_symlink allow_offline_artifacts allow_val_change anonymous api_key app_url_override base_url capture_loggers code_dir
    config_paths console console_chunk_max_bytes console_chunk_max_seconds console_multipart credentials_file disable_code disable_git
    disable_job_creation docker email entity finish_timeout finish_timeout_raises force fork_from git_commit git_remote git_remote_url
    git_root heartbeat_seconds host http_proxy https_proxy identity_token_file ignore_globs init_timeout insecure_disable_ssl job_name
    job_source label_disable launch launch_config_path login_timeout notebook_name organization program program_abspath
    program_relpath project quiet reinit relogin resume resume_from root_dir run_group run_id run_job_type run_name run_notes run_tags
    sagemaker_disable save_code settings_system show_colors show_emoji show_errors show_info show_warnings silent start_method
    stop_fn stop_on_fatal_error strict summary_timeout summary_warnings sweep_id sweep_param_path symlink sync_tensorboard
    table_raise_on_max_row_limit_exceeded username
    """.split()  # noqa: SIM905  # a list of strings would take a page
)

_said: set[str] = set()


def unsupported(name: str, instead: str = "") -> None:
    """Say that something is ignored, and what there is instead."""
    if name not in _said:
        _said.add(name)
        messages.say(f"asynctrack: {name} is not supported, and ignored" + (f"; {instead}" if instead else ""))


def is_of_wandb(setting: str) -> bool:
    """Whether a setting is one of W&B's SDK."""
    return setting in WANDB_SETTINGS or setting.startswith(("_", "x_"))


def say_unsupported(what: str, given: Mapping[str, Any]) -> None:
    """Say which arguments of a call are ignored; None stands for one that was not given."""
    for name, value in given.items():
        if value is not None:
            unsupported(f"{what}({name}=...)")
