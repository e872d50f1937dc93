"""Scheduler: the variables in which schedulers and launchers say what a job is. Runs in the collecting process. Standard library only.

The list is fixed: other variables may hold anything, and are never kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from asynctrack._system.masking import mask_text

VARIABLES: Final = (
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_JOB_ACCOUNT", "SLURM_JOB_QOS",
    "SLURM_CLUSTER_NAME", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID", "SLURM_NTASKS", "SLURM_PROCID",
    "SLURM_LOCALID", "SLURM_NODEID", "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE", "SLURM_SUBMIT_DIR",
    "PBS_JOBID", "PBS_JOBNAME", "PBS_QUEUE", "PBS_ARRAY_INDEX", "LSB_JOBID", "LSB_JOBNAME", "LSB_QUEUE", "LSB_JOBINDEX",
    "JOB_ID", "JOB_NAME", "SGE_TASK_ID", "FLUX_JOB_ID", "RAY_JOB_ID",
    "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMI_SIZE",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip
# A longer value is cut. A list of nodes is as long as this only where they have nothing in common.
_LONGEST: Final = 1000


def find_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return those of the variables that are set, without what looks like a secret."""
    return {
        name: mask_text(environment[name][:_LONGEST], environment)
        for name in VARIABLES
        if environment.get(name, "").isprintable() and environment.get(name)
    }
