"""Settings of a prediction for a few files."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.base import Picture, Section
from mat2spec.config.ingestion import ReadingConfig


class PredictConfig(Section):
    """Spectra of a few structure files."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional] = Field(
        min_length=1,
        description="structure files: CIF, POSCAR, extXYZ, pymatgen JSON, also compressed; paths or URLs",
    )
    model: str = Field(
        "phdos",
        description="name of a checkpoint that ships (phdos, phdos-mat2spec, edos), directory or URL of one, "
        "or an MLflow models:/ URI",
    )
    plot: Picture | None = Field(None, description="picture to write (PNG, PDF, SVG), one panel per structure")
    format: Literal["table", "csv", "json"] = Field(
        "table", description="printed format; csv and json include the spectra and their axis"
    )
    reading: ReadingConfig = ReadingConfig()
