"""Settings of the conversion of computed spectra to training labels."""

from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from mat2spec.config.base import Section
from mat2spec.config.splits import Fractions


class LabelsConfig(Section):
    """Computed spectra to collect in a table of labels."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional] = Field(
        min_length=1,
        description="directory of a run with spectra of mat2spec verify; or finished calculations, as files or folders "
        "of them: total_dos.dat, mesh.yaml, phonopy.yaml, vasprun.xml, DOSCAR, JSON of pymatgen",
    )
    output: str = Field(description="table of labels (Parquet); existing rows stay, new ones are added")
    base: str | None = Field(None, description="table of labels to start from if the output does not exist yet")
    level: tuple[Literal["dft", "surrogate"], ...] = Field(
        ("dft",),
        min_length=1,
        description="of a run: levels of theory to accept: DFT, or a surrogate such as a machine-learned potential",
    )
    grid: Literal["phdos", "edos"] | None = Field(
        None, description="of files: phonons or electrons; needed only where there are files of both"
    )
    frequency_unit: Literal["THz", "meV", "cm^-1"] = Field(
        "THz", description="of files: unit of the frequencies in total_dos.dat, mesh.yaml and JSON"
    )
    ids: Literal["name", "path"] = Field(
        "name",
        description="of files: material_id is the name of the folder (of a JSON file its material_id or stem), "
        "or the path below the given folder",
    )
    split: Literal["chemical_system", "random", "none"] = Field(
        "chemical_system",
        description="of files: rule for the column split: hash of the chemical system (each is in one part only), hash "
        "of the material_id, or no such column",
    )
    fractions: Fractions = Field((0.8, 0.1, 0.1), description="of files: fractions of train, valid and test; sum 1")
    start_from: str | None = Field(
        None,
        description="of files: checkpoint that is to be fine-tuned; materials that it was trained on become training "
        "rows, so that validation and test rows are new to it",
    )

    @model_validator(mode="after")
    def _start_needs_a_split(self) -> "LabelsConfig":
        if self.start_from and self.split == "none":
            raise ValueError("start_from decides which rows train, but split is none; remove one of them")
        return self
