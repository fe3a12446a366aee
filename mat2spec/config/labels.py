"""Labels from computed spectra."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.base import Section


class LabelsConfig(Section):
    """Computed spectra as training rows."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a run with computed spectra")
    output: str = Field(description="table of labels (Parquet); what it holds already stays, and rows are added")
    base: str | None = Field(
        None, description="table of labels with which the output begins, where it does not exist yet"
    )
    level: tuple[Literal["dft", "surrogate"], ...] = Field(
        ("dft",), min_length=1, description="which results are taken"
    )
