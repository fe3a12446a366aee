"""Summaries of the Materials Project: validation, crystal and table columns."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator

from mat2spec.config.ingestion import ReadingConfig
from mat2spec.data.materials_project.ids import usual_id
from mat2spec.errors import StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.formats import read_document

CalculationId = Annotated[str, StringConstraints(pattern=r"^([a-z]+-)?([a-z]+|[0-9]+)$")]
"""mp-1056831, mp-aaacidjj or aaacidjj."""


class Dos(BaseModel):
    """Calculation of the electronic density of states."""

    task_id: CalculationId | None = None


class Symmetry(BaseModel):
    """Space group."""

    number: int | None = None
    symbol: str | None = None


class Metadata(BaseModel):
    """Metadata of the document."""

    license: str | None = None


class Summary(BaseModel):
    """The fields of emmet's SummaryDoc that we use and request."""

    material_id: str
    structure: dict[str, Any]
    energy_above_hull: float | None = Field(None, description="[eV/atom]")
    formation_energy_per_atom: float | None = Field(None, description="[eV/atom]")
    band_gap: float | None = Field(None, description="[eV]")
    is_gap_direct: bool | None = None
    is_metal: bool | None = None
    efermi: float | None = Field(None, description="[eV]")
    vbm: float | None = Field(None, description="[eV]")
    cbm: float | None = Field(None, description="[eV]")
    ordering: str | None = None
    total_magnetization: float | None = Field(None, description="[Bohr magnetons per cell]")
    theoretical: bool | None = None
    symmetry: Symmetry = Symmetry()
    builder_meta: Metadata = Metadata()
    dos: Dos = Dos()
    phonon_ids: dict[str, list[CalculationId]] = Field({}, alias="phonon_IDs", description="by method")
    has_props: tuple[str, ...] = ()

    @field_validator("symmetry", "builder_meta", "dos", "phonon_ids", "has_props", mode="before")
    @classmethod
    def _null_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("has_props", mode="before")
    @classmethod
    def _list_those_that_are_true(cls, value: Any) -> Any:
        return properties(value)

    def with_(self, columns: Mapping[str, Any]) -> "Summary":
        """Replace columns that a label has too: its band edges and gap."""
        return self.model_copy(update={name: value for name, value in columns.items() if name in Summary.model_fields})

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of its row, beside the crystal."""
        fields = {name: getattr(self, name) for name in _COLUMNS if name in Summary.model_fields}
        symmetry = {"space_group_number": self.symmetry.number, "space_group_symbol": self.symmetry.symbol}
        has = {f"has_{name}": name in self.has_props for name in ("dos", "phonon")}
        return fields | symmetry | has | {"license": self.builder_meta.license}


FIELDS = (
    "material_id",
    "structure",
    "energy_above_hull",
    "formation_energy_per_atom",
    "band_gap",
    "is_gap_direct",
    "is_metal",
    "efermi",
    "vbm",
    "cbm",
    "ordering",
    "total_magnetization",
    "theoretical",
    "symmetry",
    "builder_meta",
    "dos.task_id",
    "phonon_IDs",
    "has_props",
)
"""Fields requested from the API."""

_COLUMNS = {
    "energy_above_hull": pa.float64(),
    "formation_energy_per_atom": pa.float64(),
    "band_gap": pa.float64(),
    "is_gap_direct": pa.bool_(),
    "is_metal": pa.bool_(),
    "efermi": pa.float64(),
    "vbm": pa.float64(),
    "cbm": pa.float64(),
    "ordering": pa.string(),
    "total_magnetization": pa.float64(),
    "theoretical": pa.bool_(),
    "space_group_number": pa.int32(),
    "space_group_symbol": pa.string(),
    "has_dos": pa.bool_(),
    "has_phonon": pa.bool_(),
    "license": pa.string(),
}


def read_summary(document: Mapping[str, Any]) -> Summary:
    """Read a document of the API.

    Raises:
        StructureError: If it does not match the schema; it names the first wrong field.
    """
    try:
        return Summary.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where, value = ".".join(map(str, first["loc"])), str(first["input"])[:60]
        got = "" if first["type"] == "missing" else f", got {value}"
        rule = f"the summary's {where} does not match emmet's schema ({first['msg']}{got}); is there a newer mp-api?"
        raise StructureError(str(document.get("material_id")), rule) from None


def read_crystal(summary: Summary) -> Crystal:
    """Read the structure of a summary.

    Raises:
        StructureError: If it cannot be a crystal.
    """
    crystal = read_document(summary.structure, usual_id(summary.material_id), ReadingConfig()).crystal
    if isinstance(crystal, StructureError):
        raise crystal
    return crystal


def summary_columns(summaries: Sequence[Summary]) -> dict[str, pa.Array]:
    """Columns of a materials table for some summaries."""
    rows = [summary.columns for summary in summaries]
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in _COLUMNS.items()}


def properties(has_props: Any) -> tuple[str, ...]:
    """Names of computed properties; the API has them as {name: true or false}, and older releases as a list."""
    if isinstance(has_props, Mapping):
        return tuple(name for name, exists in has_props.items() if exists)
    return tuple(map(str, has_props)) if isinstance(has_props, list | tuple) else ()
