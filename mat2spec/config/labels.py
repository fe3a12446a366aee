"""Settings of the conversion of computed spectra to training labels."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.base import Section


class LabelsConfig(Section):
    """Computed spectra to add to a table of labels."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a run with computed spectra")
    output: str = Field(description="table of labels (Parquet); existing rows stay, new ones are added")
    base: str | None = Field(None, description="table of labels to start from if the output does not exist yet")
    level: tuple[Literal["dft", "surrogate"], ...] = Field(
        ("dft",),
        min_length=1,
        description="levels of theory to accept: DFT, or a surrogate such as a machine-learned potential",
    )
