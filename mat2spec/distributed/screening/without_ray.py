"""Screening of a few rows without Ray, which takes longer to start than they take to compute."""

from collections.abc import Sequence

import psutil
import ray
import torch

from mat2spec.config import InferenceConfig
from mat2spec.data.shards.isolated_process import start_forkserver
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits
from mat2spec.distributed.address import cluster_address
from mat2spec.predict.pipeline import ScreeningStep

MAX_SHARDS, MAX_ROWS = 4, 1000
"""Up to this many are screened one after the other in subprocesses."""

MIN_MEMORY = 2_000_000_000
"""Memory limit of a process [bytes] where its share of the memory is smaller."""

_PRELOADED = ("mat2spec.data.ingest.reading", "mat2spec.predict.pipeline", *ScreeningStep.MODULES)
"""Modules that the steps in subprocesses need."""


def needs_ray(shards: Sequence[Shard]) -> bool:
    """Whether shards are for a cluster, or too many for one process."""
    on_cluster = ray.is_initialized() or cluster_address() is not None
    return on_cluster or len(shards) > MAX_SHARDS or sum(map(len, shards)) > MAX_ROWS


def prepare() -> None:
    """Start importing in the background what the subprocesses need."""
    start_forkserver(_PRELOADED)


def limits_without_ray(inference: InferenceConfig) -> ShardLimits:
    """Return the limits of a subprocess; memory: as configured, else half of what is free, unlimited with a GPU."""
    limits = ShardLimits.from_config(inference, "inference")
    if limits.memory is not None or torch.cuda.is_available():
        return limits
    return limits._replace(memory=max(MIN_MEMORY, psutil.virtual_memory().available // 2))
