"""Verification: which predictions are computed from first principles, by what and within which limits; and what becomes of the results."""

from typing import Annotated, Literal

import tyro
from pydantic import Field

from mat2spec.config.section import Positive, Section


class GpawConfig(Section):
    """An electronic density of states by GPAW: plane waves, PBE, no spin. The defaults made the bundled table."""

    cutoff_ev: float | None = Field(None, gt=100, description="[eV] of the plane waves; default: 450 with N, O or F, else 350")
    kppra_scf: Positive = Field(450, description="k-points × atoms of the charge density")
    kppra_dos: Positive = Field(1400, description="k-points × atoms of the density of states")
    even_mesh: bool = Field(False, description="only even meshes: the zone boundary, where many band edges are, is then on them")
    smearing_ev: float = Field(0.1, gt=0, description="[eV] of the occupations")
    max_iterations: Positive = Field(100, description="steps to self-consistency")
    max_band_iterations: Positive = Field(60, description="steps of the bands of the dense mesh")
    mixer_beta: float = Field(0.05, gt=0, le=1, description="share of the new density that is mixed in")
    davidson_iterations: Positive = Field(2, description="steps of the eigensolver between two densities")
    below_ev: float = Field(7.0, ge=4, description="[eV] the curve begins below the VBM")
    above_ev: float = Field(5.0, ge=4, description="[eV] the curve ends above the CBM; bands reach at least as far")
    step_ev: float = Field(0.0125, gt=0, le=0.0625, description="[eV] between points of the curve")


class PhononConfig(Section):
    """A phonon density of states by finite displacements (phonopy) with the forces of an ASE calculator."""

    supercell_length: float = Field(10.0, gt=0, description="[Å] shortest repeat of the supercell along each axis of the primitive cell")
    displacement: float = Field(0.01, gt=0, le=0.1, description="[Å] of an atom")
    q_length: float = Field(60.0, gt=0, description="[Å] the mesh of wave vectors has as many points as repeats fit into this")
    lowest_frequency: float = Field(-15.0, le=0, description="[cm⁻¹] a crystal with a mode below is unstable here, and rejected")
    step: float = Field(4.0, gt=0, le=20, description="[cm⁻¹] between points of the curve")


class LimitsConfig(Section):
    """What one material may take."""

    cores: Positive = Field(1, description="cores that Ray reserves for one material; the engines compute on one thread")
    memory_gb: float = Field(4.0, gt=0, description="[GB] memory of one material; a process that needs more is ended")
    time_limit: float = Field(1800.0, gt=0, description="[s] of one attempt; there are two, the second with safer settings")
    max_sites: Positive = Field(12, description="sites of the largest primitive cell that is computed")


class VerifyConfig(Section):
    """Compute what a run predicted."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a finished screening")
    where: str = Field(description="SQL condition on the view predictions: the shortlist")
    limit: Positive | None = Field(None, description="at most so many of the shortlist, drawn at random")
    sample_negatives: int = Field(0, ge=0, description="so many others, drawn at random; without them there is no recall")
    seed: int = Field(1, ge=0, description="of the draw; a larger draw with the same seed holds the smaller")
    engine: str = Field("gpaw", description="gpaw, vasp, or phonopy:CALCULATOR, an ASE calculator as module:name")
    retry_rejects: bool = Field(False, description="compute again what was rejected before")
    vasp_folder: str | None = Field(None, description="where VASP's inputs are written and its results are read; default: RUN/vasp")
    limits: LimitsConfig = LimitsConfig()
    gpaw: GpawConfig = GpawConfig()
    phonon: PhononConfig = PhononConfig()


class LabelsConfig(Section):
    """Verified spectra as training rows."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a run with verified spectra")
    output: str = Field(description="table of labels (Parquet); what it holds already stays, and rows are added")
    label: str = Field("edos", description="column of the spectra: edos, or phdos")
    base: str | None = Field(None, description="table of labels with which the output begins, where it does not exist yet")
    level: tuple[Literal["dft", "surrogate"], ...] = Field(("dft",), min_length=1, description="which results are taken")


class ProposeConfig(Section):
    """What to compute next."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a finished screening")
    by: Literal["spread", "margin", "diversity", "random"] = Field(
        description="highest expected error; nearest to the edge of the VB gap rule; farthest from what was seen; or by chance"
    )
    n: Annotated[Positive, tyro.conf.arg(aliases=["-n"])] = Field(50, description="materials to propose")
    where: str | None = Field(None, description="SQL condition on the view predictions that they must meet")
    seed: int = Field(1, ge=0, description="of what is left to chance")
    output: str | None = Field(None, description="table of the proposed ids (Parquet); default: they are only printed")
