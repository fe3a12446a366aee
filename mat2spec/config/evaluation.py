"""Settings of an evaluation: checkpoint and materials."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.base import Section


class EvaluateConfig(Section):
    """Evaluation of a checkpoint on labeled crystals."""

    checkpoint: Annotated[str, tyro.conf.Positional] = Field(
        description="name of a checkpoint that ships (phdos, phdos-mat2spec, edos), directory or URL of one, "
        "or an MLflow models:/ URI"
    )
    split: Literal["train", "valid", "test"] = Field("test", description="part of the labels to evaluate on")
    labels: str | None = Field(
        None,
        description="materials table with labels and splits, whose test rows were not seen in training; "
        "if not set: the table of the training",
    )
    label: str | None = Field(
        None, description="column of the labels in that table; if not set: that of the training, such as phdos"
    )
    strain: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="random strain of validation or test cells: standard deviation of each component",
    )
    displacement: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="random displacement of validation or test atoms: standard deviation along each axis [Å]",
    )
    output: str | None = Field(
        None, description="FILE.json for the scores; if not set: evaluation-SPLIT.json in MAT2SPEC_HOME, else here"
    )
