"""Verification: which predictions are computed from first principles, by what and within which limits; and what becomes of the results."""

from typing import Annotated

import tyro
from pydantic import Field

from mat2spec.config.base import Positive, Section


class GpawConfig(Section):
    """An electronic density of states by GPAW: plane waves, PBE, no spin. The defaults made the bundled tables, three meshes apart."""

    cutoff_ev: float | None = Field(
        None, gt=100, description="[eV] of the plane waves; default: 450 with N, O or F, else 350"
    )
    kppra_scf: Positive = Field(450, description="k-points × atoms of the charge density")
    kppra_dos: Positive = Field(1400, description="k-points × atoms of the density of states")
    even_mesh: bool = Field(
        False, description="only even meshes: the zone boundary, where many band edges are, is then on them"
    )
    smearing_ev: float = Field(0.1, gt=0, description="[eV] of the occupations")
    max_iterations: Positive = Field(100, description="steps to self-consistency")
    max_band_iterations: Positive = Field(60, description="steps of the bands of the dense mesh")
    mixer_beta: float = Field(0.05, gt=0, le=1, description="share of the new density that is mixed in")
    davidson_iterations: Positive = Field(2, description="steps of the eigensolver between two densities")
    below_ev: float = Field(7.0, ge=4, description="[eV] the curve begins below the VBM")
    above_ev: float = Field(5.0, ge=4, description="[eV] the curve ends above the CBM; bands reach at least as far")
    step_ev: float = Field(0.0125, gt=0, le=0.0625, description="[eV] between points of the curve")
    without_spin: bool = Field(
        False, description="compute open 3d, 4f and 5f shells, too, without spin, instead of refusing them"
    )


class PhononConfig(Section):
    """A phonon density of states by finite displacements (phonopy), with the forces of an ASE calculator or of GPAW."""

    supercell_length: float = Field(
        10.0, gt=0, description="[Å] shortest repeat of the supercell along each axis of the primitive cell"
    )
    displacement: float = Field(0.01, gt=0, le=0.1, description="[Å] of an atom")
    q_length: float = Field(
        60.0, gt=0, description="[Å] the mesh of wave vectors has as many points as repeats fit into this"
    )
    step: float = Field(4.0, gt=0, le=20, description="[cm⁻¹] between points of the curve")


class LimitsConfig(Section):
    """What one material may take."""

    cores: Positive = Field(
        1, description="cores, and threads, of one material; cells this small gain little from more than one"
    )
    memory_gb: float = Field(4.0, gt=0, description="[GB] memory of one material; a process that needs more is ended")
    time_limit: float = Field(
        1800.0, gt=0, description="[s] of one attempt; there are two, the second by safer settings"
    )
    max_sites: Positive = Field(12, description="sites of the largest primitive cell that is computed")
    max_volume: float = Field(
        400.0, gt=0, description="[Å³] largest primitive cell that is computed: plane waves fill empty space, too"
    )


class VerifyConfig(Section):
    """Compute what a run predicted, and say how right it was."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a finished screening")
    where: str = Field(description="SQL condition on the view predictions: the shortlist")
    among: str | None = Field(
        None, description="SQL condition that both shortlist and others must meet, such as nsites_primitive <= 6"
    )
    limit: Positive | None = Field(None, description="at most so many of the shortlist, drawn at random")
    sample_negatives: int = Field(
        0, ge=0, description="so many others, drawn at random; without them there is no recall"
    )
    include_seen: bool = Field(
        False, description="draw also from what training had seen; precision and recall leave it out in any case"
    )
    seed: int = Field(1, ge=0, description="of the draw; a larger draw with the same seed holds the smaller")
    engine: str = Field(
        "gpaw", description="gpaw, vasp, phonopy:gpaw, or phonopy:CALCULATOR, an ASE calculator as module:name"
    )
    retry_rejects: bool = Field(False, description="compute again what was rejected before within the same limits")
    vasp_folder: str | None = Field(
        None, description="where VASP's inputs are written and its results are read; default: RUN/vasp"
    )
    limits: LimitsConfig = LimitsConfig()
    gpaw: GpawConfig = GpawConfig()
    phonon: PhononConfig = PhononConfig()
