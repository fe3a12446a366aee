"""Settings of a screening: input, checkpoint, and how the work is divided."""

from pydantic import Field

from mat2spec.config.base import Positive, Section
from mat2spec.config.ingestion import ProcessLimitsConfig, ReadingConfig


class InferenceConfig(ProcessLimitsConfig):
    """Shards, worker processes and their limits."""

    rows_per_shard: Positive = Field(
        1000, description="input rows per shard, the unit of work, of resuming and of output files"
    )
    edges_per_batch: Positive | None = Field(
        None, description="edges in one forward pass; if not set: 4,000 on a CPU, 200,000 on a GPU with the memory"
    )
    predictors: Positive | None = Field(
        None, description="worker processes that hold the model; if not set: one per GPU, else one per core"
    )
    separate_featurization: bool | None = Field(
        None,
        description="build graphs in separate tasks on any core instead of in the predicting process; "
        "if not set: only when there are GPUs",
    )
    memory_per_process: float | None = Field(
        None,
        gt=0,
        description="memory limit of a worker process [GB]; if not set: its share of the memory known to Ray, "
        "without Ray half of what is free, no limit with GPUs",
    )


class ScreenConfig(Section):
    """A screening: structures in, a run directory out."""

    input: str = Field(
        description="materials table (Parquet file, folder or glob), or structure files, archives and CSV (file, "
        "folder or glob), of which a materials table is made first; path or URL"
    )
    checkpoint: str = Field(
        description="name of a checkpoint that ships, checkpoint directory, URL, or MLflow models:/ URI"
    )
    where: str | None = Field(
        None, description="SQL condition on the columns of the materials table; other rows are not screened"
    )
    reading: ReadingConfig = ReadingConfig()
    inference: InferenceConfig = InferenceConfig()
    output: str | None = Field(None, description="run directory, path or URL; if not set: runs/NAME")
    allow_new_rows: bool = Field(
        False,
        description="when resuming, also screen rows added to the input since (recognized by material_id)",
    )
    force_unlock: bool = Field(
        False,
        description="remove the lock that a killed job left in an object store, or on a disk without flock; "
        "only if that job is known to be dead",
    )
    track: bool = Field(True, description="record the screening in MLflow")
