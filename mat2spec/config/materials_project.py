"""Settings of a download from the Materials Project: which materials, and how requests are sent."""

from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, model_validator

from mat2spec.config.base import Positive, Section
from mat2spec.config.substitution import Words

Range = tuple[float, float]

PROPERTIES = ("bandstructure", "dos", "elasticity", "dielectric", "magnetism", "phonon")
"""Properties that a material may have or lack, named as in the API."""


class QueryConfig(Section):
    """Conditions on materials, named as in mp-api; those not given do not restrict."""

    preset: Literal["paper"] | None = Field(
        None,
        description="paper: materials screened by Kong et al.: 1 to 4 elements, at most 0.5 eV/atom above the hull, "
        "no band gap, not magnetic; explicit options override the preset",
    )
    num_elements: tuple[int, int] | None = Field(None, description="minimum and maximum number of elements")
    num_sites: tuple[int, int] | None = Field(None, description="minimum and maximum number of sites in the cell")
    energy_above_hull: Range | None = Field(
        None, description="minimum and maximum energy above the convex hull [eV/atom]"
    )
    band_gap: Range | None = Field(None, description="minimum and maximum band gap [eV]")
    magnetic_ordering: Literal["NM", "FM", "AFM", "FiM", "any"] | None = Field(
        None, description="non-magnetic, ferro-, antiferro- or ferrimagnetic; if not set: NM for edos, else any"
    )
    chemsys: Words = Field((), description="chemical systems, such as Li-Fe-O or Si-*; separated by commas")
    elements: Words = Field((), description="elements that a material must contain")
    exclude_elements: Words = Field((), description="elements that a material must not contain")
    theoretical: bool | None = Field(
        None, description="only materials without, or only those with, an experimental structure"
    )
    has: Words = Field((), description=f"properties that must have been computed: {', '.join(PROPERTIES)}")
    lacks: Words = Field((), description="properties that must not have been computed, such as dos")
    include_gnome: bool = Field(
        False, description="include materials of GNoME, whose license (CC BY-NC 4.0) forbids commercial use"
    )
    ids: str | None = Field(
        None,
        description="instead of conditions: text file with one id per line, "
        "or CSV or Parquet file with a column material_id",
    )

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions by name: those of the preset, overridden by explicit ones."""
        explicit = self.model_dump(exclude={"preset", "include_gnome", "ids"}, exclude_defaults=True)
        return (PRESETS[self.preset] if self.preset else {}) | explicit

    @model_validator(mode="after")
    def _can_be_met(self) -> "QueryConfig":
        for name in ("num_elements", "num_sites", "energy_above_hull", "band_gap"):
            if (value := getattr(self, name)) is not None and value[0] > value[1]:
                raise ValueError(
                    f"{name}: minimum {value[0]:g} is greater than maximum {value[1]:g}; give the lower number first"
                )
        for name in (*self.has, *self.lacks):
            if name not in PROPERTIES:
                raise ValueError(f"{name!r} is not a property; choose from {', '.join(PROPERTIES)}")
        if both := set(self.has) & set(self.lacks):
            raise ValueError(
                f"a material cannot both have and lack {', '.join(sorted(both))}; remove it from one of them"
            )
        if self.ids and (self.conditions.keys() - {"magnetic_ordering"}):
            raise ValueError(
                "ids already selects materials; remove the preset and all conditions but magnetic_ordering"
            )
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "num_elements": (1, 4),
        "energy_above_hull": (0.0, 0.5),
        "band_gap": (0.0, 0.0),
        "magnetic_ordering": "NM",
    }
}
"""Conditions by preset. Paper: metals screened for gaps near the Fermi level (10.1038/s41467-022-28543-x)."""


class DownloadConfig(Section):
    """Requests to the Materials Project: size, rate and retries."""

    rows_per_shard: Positive = Field(
        1_000,
        description="materials downloaded and written together; at most as many are downloaded again after a kill",
    )
    ids_per_request: int = Field(
        200, gt=0, le=1000, description="materials per request; the server refuses longer URLs"
    )
    threads: int = Field(4, gt=0, le=4, description="shards downloaded at the same time; mp-api asks for at most 4")
    requests_per_second: float = Field(
        10.0, gt=0, le=25, description="maximum rate over all threads; the Materials Project allows 25"
    )
    timeout: Positive = Field(60, description="time to wait for an answer [s]")
    retry_timeout: float = Field(
        900.0, ge=0, description="time for which failed requests (429, 5xx, …) are retried with exponential backoff [s]"
    )
    endpoint: str | None = Field(
        None, description="URL of the API; if not set: MP_API_ENDPOINT, else the Materials Project"
    )


class MaterialsProjectConfig(Section):
    """Candidates or labeled crystals to download from the Materials Project."""

    what: Annotated[Literal["candidates", "edos", "phdos"], tyro.conf.Positional] = Field(
        description="candidates: structures to screen; edos, phdos: structures with their density of states "
        "on the grid of labels"
    )
    output: str = Field(description="directory of the table: materials/*.parquet and rejects/*.parquet")
    query: QueryConfig = QueryConfig()
    phonon_method: Literal["dfpt", "phonopy", "pheasy"] = Field(
        "dfpt",
        description="for phdos: phonon method; the bundled labels are dfpt, and methods are not mixed",
    )
    download: DownloadConfig = DownloadConfig()

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions of the query and of the kind of label: a spectrum and, for electrons, no magnetism."""
        conditions = self.query.conditions
        needed = {"candidates": (), "edos": ("dos",), "phdos": ("phonon",)}[self.what]
        if self.what == "edos":
            conditions = {"magnetic_ordering": "NM"} | conditions
        if needed:
            conditions = conditions | {"has": tuple(sorted({*conditions.get("has", ()), *needed}))}
        return {name: value for name, value in conditions.items() if value != "any"}

    @model_validator(mode="after")
    def _labels_are_not_lacking(self) -> "MaterialsProjectConfig":
        needed = {"edos": {"dos"}, "phdos": {"phonon"}}.get(self.what, set())
        if conflict := set(self.query.lacks) & needed:
            raise ValueError(f"{self.what} needs materials that have {conflict.pop()}; remove it from lacks")
        return self
