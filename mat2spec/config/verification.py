"""Settings of a verification by first principles: materials, engine and limits."""

from typing import Annotated

import tyro
from pydantic import Field

from mat2spec.config.base import Positive, Section


class GpawConfig(Section):
    """Electronic density of states with GPAW: plane waves, PBE, no spin.

    The defaults are those of the bundled tables, except for three k-point meshes.
    """

    cutoff_ev: float | None = Field(
        None, gt=100, description="plane-wave cutoff [eV]; if not set: 450 with N, O or F, else 350"
    )
    kppra_scf: Positive = Field(450, description="k-points × atoms for the charge density")
    kppra_dos: Positive = Field(1400, description="k-points × atoms for the density of states")
    even_mesh: bool = Field(
        False, description="use only even k-point meshes, which contain the zone boundary, where many band edges are"
    )
    smearing_ev: float = Field(0.1, gt=0, description="smearing of the occupations [eV]")
    max_iterations: Positive = Field(100, description="maximum number of self-consistency steps")
    max_band_iterations: Positive = Field(60, description="maximum number of steps for the bands on the dense mesh")
    mixer_beta: float = Field(0.05, gt=0, le=1, description="fraction of the new density that is mixed in")
    davidson_iterations: Positive = Field(2, description="eigensolver steps per density update")
    below_ev: float = Field(7.0, ge=4, description="range of the curve below the VBM [eV]")
    above_ev: float = Field(5.0, ge=4, description="range of the curve above the CBM [eV]; bands reach at least as far")
    step_ev: float = Field(0.0125, gt=0, le=0.0625, description="energy step of the curve [eV]")
    without_spin: bool = Field(
        False, description="compute materials with open 3d, 4f or 5f shells without spin instead of rejecting them"
    )


class PhononConfig(Section):
    """Phonon density of states by finite displacements (phonopy), with forces of an ASE calculator or of GPAW."""

    supercell_length: float = Field(
        10.0, gt=0, description="minimum length of the supercell along each axis of the primitive cell [Å]"
    )
    displacement: float = Field(0.01, gt=0, le=0.1, description="displacement of an atom [Å]")
    q_length: float = Field(
        60.0, gt=0, description="length that sets the q-point mesh: as many points as cell repeats fit into it [Å]"
    )
    step: float = Field(4.0, gt=0, le=20, description="frequency step of the curve [cm⁻¹]")


class LimitsConfig(Section):
    """Resources and sizes allowed for one material."""

    cores: Positive = Field(
        1, description="cores, and threads, per material; such small cells gain little from more than one"
    )
    memory_gb: float = Field(
        4.0, gt=0, description="memory limit per material [GB]; a process that exceeds it is stopped"
    )
    time_limit: float = Field(
        1800.0, gt=0, description="time limit per attempt [s]; there are two attempts, the second with safer settings"
    )
    max_sites: Positive = Field(12, description="maximum number of sites in the primitive cell")
    max_volume: float = Field(
        400.0, gt=0, description="maximum volume of the primitive cell [Å³]; plane waves also fill empty space"
    )


class VerifyConfig(Section):
    """First-principles calculations for predictions of a run, and the precision and recall of its shortlist."""

    run: Annotated[str, tyro.conf.Positional] = Field(description="directory of a finished screening")
    where: str = Field(description="SQL condition on the view predictions that defines the shortlist")
    among: str | None = Field(
        None,
        description="SQL condition for all materials to compute, shortlisted or not, such as nsites_primitive <= 6",
    )
    limit: Positive | None = Field(
        None, description="maximum number of shortlisted materials, sampled at random; if not set: all"
    )
    sample_negatives: int = Field(
        0, ge=0, description="number of non-shortlisted materials to sample; required to estimate recall"
    )
    include_seen: bool = Field(
        False, description="also sample materials seen in training; precision and recall always exclude them"
    )
    seed: int = Field(
        1, ge=0, description="random seed of the sample; a larger sample with the same seed contains the smaller one"
    )
    engine: str = Field(
        "gpaw", description="gpaw, vasp, phonopy:gpaw, or phonopy:CALCULATOR with an ASE calculator as module:name"
    )
    retry_rejects: bool = Field(
        False, description="compute materials again that were rejected before under the same limits"
    )
    force_unlock: bool = Field(
        False,
        description="remove the lock that a killed job of another machine left, on a disk without flock; "
        "only if that job is known to be dead",
    )
    vasp_folder: str | None = Field(None, description="folder for VASP inputs and results; if not set: RUN/vasp")
    limits: LimitsConfig = LimitsConfig()
    gpaw: GpawConfig = GpawConfig()
    phonon: PhononConfig = PhononConfig()
