"""Settings of a query to a run directory."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.base import Picture, Section


class RunQueryConfig(Section):
    """SQL query of a run, or a named query."""

    run: Annotated[str, tyro.conf.Positional] = Field(
        description="directory or URL of a screening, or of an ingestion (views materials and rejects)"
    )
    question: Annotated[str, tyro.conf.Positional] = Field(
        description="SQL over the views predictions and rejects, or @NAME of a named query"
    )
    format: Literal["table", "csv", "json"] = Field("table", description="printed format")
    plot: Picture | None = Field(
        None, description="picture to write (PNG, PDF, SVG): the predicted spectra of the answer's materials"
    )
