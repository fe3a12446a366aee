"""What is fetched from the Materials Project: by which conditions, and how patiently."""

from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, model_validator

from mat2spec.config.base import Positive, Section
from mat2spec.config.substitution import Words

Range = tuple[float, float]

PROPERTIES = ("bandstructure", "dos", "elasticity", "dielectric", "magnetism", "phonon")
"""What a material may have or lack, by the names that the API has for it."""


class QueryConfig(Section):
    """Conditions on materials, by the names that mp-api has for them; those left out do not restrict."""

    preset: Literal["paper"] | None = Field(
        None,
        description="paper: what Kong et al. screened: 1 to 4 elements, at most 0.5 eV/atom above the hull, no band gap, not magnetic; "
        "options beside it go before it",
    )
    num_elements: tuple[int, int] | None = Field(None, description="least and greatest number of elements")
    num_sites: tuple[int, int] | None = Field(None, description="least and greatest number of sites in the cell")
    energy_above_hull: Range | None = Field(
        None, description="[eV/atom] lowest and highest energy above the convex hull"
    )
    band_gap: Range | None = Field(None, description="[eV] narrowest and widest band gap")
    magnetic_ordering: Literal["NM", "FM", "AFM", "FiM", "any"] | None = Field(
        None, description="non-magnetic, ferro-, antiferro- or ferrimagnetic; default: any, but NM for edos"
    )
    chemsys: Words = Field((), description="chemical systems, as Li-Fe-O or Si-*; several with commas between them")
    elements: Words = Field((), description="elements that a material must have")
    exclude_elements: Words = Field((), description="elements that it must not have")
    theoretical: bool | None = Field(None, description="only what no experiment has seen, or only what one has")
    has: Words = Field((), description=f"properties that were computed: {', '.join(PROPERTIES)}")
    lacks: Words = Field((), description="properties that were not computed, as dos")
    include_gnome: bool = Field(
        False, description="also materials of GNoME, which nobody may use commercially (CC BY-NC 4.0)"
    )
    ids: str | None = Field(
        None,
        description="instead of conditions: text file with an id on each line, or CSV or Parquet file with a column material_id",
    )

    @property
    def conditions(self) -> dict[str, Any]:
        """What restricts, by name: the preset's conditions, and those given, which go before them."""
        given = self.model_dump(exclude={"preset", "include_gnome", "ids"}, exclude_defaults=True)
        return (PRESETS[self.preset] if self.preset else {}) | given

    @model_validator(mode="after")
    def _can_be_met(self) -> "QueryConfig":
        for name in ("num_elements", "num_sites", "energy_above_hull", "band_gap"):
            if (value := getattr(self, name)) is not None and value[0] > value[1]:
                raise ValueError(f"{name} begins at {value[0]:g} and ends at {value[1]:g}; give the lower number first")
        for name in (*self.has, *self.lacks):
            if name not in PROPERTIES:
                raise ValueError(f"{name!r} is no property; there are {', '.join(PROPERTIES)}")
        if both := set(self.has) & set(self.lacks):
            raise ValueError(f"no material has and lacks {', '.join(sorted(both))}")
        if self.ids and (self.conditions.keys() - {"magnetic_ordering"}):
            raise ValueError("ids names the materials; leave out the preset and all conditions but magnetic_ordering")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "num_elements": (1, 4),
        "energy_above_hull": (0.0, 0.5),
        "band_gap": (0.0, 0.0),
        "magnetic_ordering": "NM",
    }
}
"""Conditions by the name of a preset (Kong et al., 10.1038/s41467-022-28543-x: candidates for gaps near the Fermi level of metals)."""


class DownloadConfig(Section):
    """How the Materials Project is asked."""

    rows_per_shard: Positive = Field(
        1_000, description="materials that are fetched and written together: what a kill can cost"
    )
    ids_per_request: int = Field(
        200, gt=0, le=1000, description="materials that are asked for at once; long addresses are refused"
    )
    threads: int = Field(
        4, gt=0, le=4, description="shards that are fetched at the same time; mp-api asks for no more than 4"
    )
    requests_per_second: float = Field(
        10.0, gt=0, le=25, description="over all threads; the Materials Project allows 25"
    )
    timeout: Positive = Field(60, description="[s] for which an answer may be silent")
    patience: float = Field(
        900.0, ge=0, description="[s] for which a request that fails is repeated, less and less often"
    )
    endpoint: str | None = Field(
        None, description="address of the API; default: MP_API_ENDPOINT, else the Materials Project"
    )


class MaterialsProjectConfig(Section):
    """Candidates, or labelled crystals, of the Materials Project."""

    what: Annotated[Literal["candidates", "edos", "phdos"], tyro.conf.Positional] = Field(
        description="candidates: structures to screen; edos, phdos: structures with their density of states on the grid of labels"
    )
    output: str = Field(description="directory of the table: materials/*.parquet and rejects/*.parquet")
    query: QueryConfig = QueryConfig()
    phonon_method: Literal["dfpt", "phonopy", "pheasy"] = Field(
        "dfpt", description="for phdos: the method; the bundled labels are of dfpt, and methods are not mixed"
    )
    download: DownloadConfig = DownloadConfig()

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions of the query, with those that the kind of label brings: a spectrum, and for electrons no magnetism."""
        found = self.query.conditions
        needed = {"candidates": (), "edos": ("dos",), "phdos": ("phonon",)}[self.what]
        if self.what == "edos":
            found = {"magnetic_ordering": "NM"} | found
        if needed:
            found = found | {"has": tuple(sorted({*found.get("has", ()), *needed}))}
        return {name: value for name, value in found.items() if value != "any"}

    @model_validator(mode="after")
    def _labels_are_not_lacking(self) -> "MaterialsProjectConfig":
        if wrong := set(self.query.lacks) & {"edos": {"dos"}, "phdos": {"phonon"}}.get(self.what, set()):
            raise ValueError(f"{self.what} needs materials that have {wrong.pop()}; leave out lacks")
        return self
