"""W&B's modules for its classes, for annotations such as `wandb.sdk.wandb_run.Run`."""

from asynctrack.wandb.sdk import wandb_config as wandb_config
from asynctrack.wandb.sdk import wandb_run as wandb_run
from asynctrack.wandb.sdk import wandb_summary as wandb_summary
