"""Settings of a screening."""

from pydantic import Field

from mat2spec.config.base import Positive, Section


class InferenceConfig(Section):
    """How a screening is cut into work."""

    rows_per_shard: Positive = Field(1000, description="input rows per unit of work, of resumption and of output")
    edges_per_batch: Positive | None = Field(
        None, description="edges in one forward pass; default: 4,000 on a CPU, 400,000 on a GPU"
    )
    predictors: Positive | None = Field(
        None, description="processes that hold the model; default: one per GPU, else one per core"
    )
    featurize_apart: bool | None = Field(
        None,
        description="graphs are built by tasks of their own on any core, not where they are used; default: if there are GPUs",
    )
    seconds_per_shard: float = Field(
        600, gt=0, description="[s] a shard that takes longer hangs; the rows that make it so are found and rejected"
    )
    memory_per_process: float | None = Field(
        None,
        gt=0,
        description="[GB] data of a process that computes; default: its share of the memory that Ray counts; GPU: any",
    )
    fault_limit: Positive = Field(
        100, description="rows that may end their process, exceed its time or its memory; with one more the job stops"
    )


class ScreenConfig(Section):
    """One screening: structures in, a run directory out."""

    input: str = Field(
        description="materials table (file, folder or glob of Parquet) or structure files (folder or glob); a path or URL"
    )
    checkpoint: str = Field(description="checkpoint directory, its URL, or an MLflow models:/ URI")
    where: str | None = Field(
        None, description="SQL condition on the input's columns; only rows that meet it are input"
    )
    inference: InferenceConfig = InferenceConfig()
    output: str | None = Field(None, description="run directory, a path or URL; default: runs/NAME")
    allow_new_rows: bool = Field(
        False,
        description="if rows were added to the input of a run, screen them too; known ones are told by material_id",
    )
    track: bool = Field(True, description="keep a record of the screening in MLflow")
