"""One electronic density of states by GPAW, or forces: a program of process.py, for the Python that has GPAW.

Energies are in eV on the zero of the calculation, lengths in Å. PBE, plane waves, no spin, no spin-orbit coupling.
"""

from typing import Any

import numpy as np

BANDS_MARGIN = 0.5
"""[eV] By how much more than the curve needs the highest band shall reach, so that the solver can see it."""

METAL_GAP = 0.05
"""[eV] A narrower gap between the bands counts as none."""


MAX_FORCE_CHANGE = 1e-4
"""[eV/Å] Between the last steps to self-consistency: a displacement of 0.01 Å gives forces of 0.01 to 0.3 eV/Å."""


def compute(structure: dict[str, Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Charge density, then the bands of a denser mesh in it, then their density of states on one uniform grid of energies."""
    from gpaw import __version__

    atoms = atoms_of(structure)
    needed = settings["above_ev"] + BANDS_MARGIN
    scf_mesh, mesh = (
        k_mesh(atoms.cell.array, len(atoms), settings[key], settings["even_mesh"]) for key in ("kppra_scf", "kppra_dos")
    )
    atoms.calc = calculator = ground_state(scf_mesh, settings, log, nbands=first_guess_of_bands(atoms, needed))
    total_energy = atoms.get_potential_energy()
    electrons = round(calculator.get_number_of_electrons())
    bands = denser_bands(calculator, mesh, settings, electrons)
    eigenvalues, weights = bands_of(bands)
    efermi, vbm, cbm = band_edges(eigenvalues, weights, electrons, settings["smearing_ev"])
    points = int((cbm - vbm + settings["below_ev"] + settings["above_ev"]) / settings["step_ev"] + 1e-6) + 1
    energies = vbm - settings["below_ev"] + settings["step_ev"] * np.arange(points)
    return {
        "energies": energies.tolist(),
        "densities": tetrahedron_dos(bands, energies).tolist(),
        "efermi": efermi,
        "vbm": vbm,
        "cbm": cbm,
        "band_gap": cbm - vbm,
        "total_energy": total_energy,
        "bands_cover_ev": float(eigenvalues[:, -1].min() - cbm),
        "nbands": eigenvalues.shape[1],
        "electrons": electrons,
        "k_mesh": mesh,
        "k_mesh_scf": scf_mesh,
        "scf_iterations": calculator.get_number_of_iterations(),
        "engine_version": f"gpaw {__version__}",
        "setups": {setup.symbol: setup.fingerprint for setup in calculator.setups},
    }


def forces(structure: dict[str, Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Forces [eV/Å] and energies [eV] of several cells."""
    from gpaw import __version__

    found: dict[str, Any] = {"forces": [], "energies": [], "engine_version": f"gpaw {__version__}"}
    for cell in structure["cells"]:
        atoms = atoms_of(cell)
        mesh = k_mesh(atoms.cell.array, len(atoms), settings["kppra_scf"], settings["even_mesh"])
        atoms.calc = ground_state(mesh, settings, log, convergence={"forces": MAX_FORCE_CHANGE})
        found["forces"].append(atoms.get_forces().tolist())
        found["energies"].append(float(atoms.get_potential_energy()))
    return found


def atoms_of(structure: dict[str, Any]) -> Any:
    """ASE atoms of a row of a materials table: `Crystal.to_atoms` for a Python that need not have mat2spec."""
    import numpy as np
    from ase import Atoms

    lattice = np.reshape(structure["lattice"], (3, 3))
    frac_coords = np.reshape(structure["frac_coords"], (-1, 3))
    return Atoms(structure["atomic_numbers"], cell=lattice, scaled_positions=frac_coords, pbc=True)


def ground_state(mesh: list[int], settings: dict[str, Any], log: str, **further: Any) -> Any:
    """A calculator of the charge density."""
    from gpaw import GPAW, PW, Davidson, FermiDirac, Mixer

    return GPAW(
        mode=PW(settings["cutoff_ev"]),
        xc="PBE",
        kpts={"size": mesh, "gamma": True},
        occupations=FermiDirac(settings["smearing_ev"]),
        spinpol=False,
        maxiter=settings["max_iterations"],
        mixer=Mixer(settings["mixer_beta"], 5, 50.0),
        eigensolver=Davidson(settings["davidson_iterations"]),
        txt=log,
        **further,
    )


def k_mesh(lattice: np.ndarray, natoms: int, kppra: float, even: bool) -> list[int]:
    """A Γ-centred mesh of about kppra k-points per reciprocal atom, as evenly spaced as whole numbers allow.

    On an even one lies the zone boundary, where most band edges are that are not at Γ.
    """
    lengths = np.linalg.norm(np.linalg.inv(lattice), axis=0)
    wanted = lengths * (kppra / natoms / lengths.prod()) ** (1 / 3)
    return [max(2, 2 * round(float(n) / 2)) if even else max(1, round(float(n))) for n in wanted]


def first_guess_of_bands(atoms: Any, above_ev: float) -> int:
    """Occupied bands, those of free electrons up to above_ev over a Fermi energy of 5 eV in this volume, and empty d and f shells."""
    from gpaw.setup import create_setup

    electrons = sum(create_setup(symbol, "PBE").Nv for symbol in atoms.symbols)
    free = atoms.get_volume() * ((above_ev + 5.0) / 3.81) ** 1.5 / (6 * np.pi**2)
    narrow = sum(shells_that_may_be_empty(int(z)) for z in atoms.numbers)
    return int(electrons / 2) + int(np.ceil(0.8 * free)) + narrow + 2


def shells_that_may_be_empty(z: int) -> int:
    """Bands of empty d (and f) shells near the Fermi level: potassium to copper and below, lanthanum and cerium."""
    for first, last in ((19, 29), (37, 47), (55, 79)):
        if first <= z <= last:
            return (5 if z < last - 3 else 1) + (7 if z in (57, 58) else 0)
    return 0


def denser_bands(calculator: Any, mesh: list[int], settings: dict[str, Any], electrons: int) -> Any:
    """The bands of a denser mesh in a fixed density, with more bands until the lowest of the highest reaches far enough."""
    from gpaw import KohnShamConvergenceError

    nbands = calculator.get_number_of_bands()
    for _attempt in range(4):
        convergence = {"bands": f"CBM+{settings['above_ev']}"}
        bands = unfinished = None
        try:
            bands = calculator.fixed_density(
                kpts={"size": mesh, "gamma": True},
                nbands=nbands,
                convergence=convergence,
                txt=None,
                maxiter=settings["max_band_iterations"],
            )
        except KohnShamConvergenceError as error:
            unfinished = error
        if bands is not None:
            eigenvalues, weights = bands_of(bands)
            if (
                eigenvalues[:, -1].min() - band_edges(eigenvalues, weights, electrons, settings["smearing_ev"])[2]
                >= settings["above_ev"]
            ):
                return bands
        nbands += max(4, (nbands - electrons // 2) // 2)
    raise unfinished or RuntimeError(f"{nbands} bands do not reach {settings['above_ev']} eV above the CBM")


def bands_of(calculator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k-points, bands) in eV, and the weights of the k-points, which add up to one."""
    weights = np.array(calculator.get_k_point_weights())
    return np.array([calculator.get_eigenvalues(kpt=k) for k in range(len(weights))]), weights


def band_edges(
    eigenvalues: np.ndarray, weights: np.ndarray, electrons: int, smearing: float
) -> tuple[float, float, float]:
    """Fermi level, VBM and CBM of these bands; the Fermi level three times for a metal.

    GPAW 22.8 keeps the Fermi level of the coarser mesh in a fixed density: up to 0.27 eV off in metals.
    """
    if electrons % 2 == 0:
        vbm, cbm = float(eigenvalues[:, electrons // 2 - 1].max()), float(eigenvalues[:, electrons // 2].min())
        if cbm - vbm >= METAL_GAP:
            return (vbm + cbm) / 2, vbm, cbm
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    while high - low > 1e-9:
        middle = (low + high) / 2
        filled = 2 * (weights @ (1 / (1 + np.exp(np.clip((eigenvalues - middle) / smearing, -200, 200))))).sum()
        low, high = (middle, high) if filled < electrons else (low, middle)
    return low, low, low


def tetrahedron_dos(calculator: Any, energies: np.ndarray) -> np.ndarray:
    """Density of states [states/eV per cell] by linear tetrahedra, which in GPAW 22.8 take the energies for uniform."""
    from gpaw.dos import DOSCalculator

    return np.asarray(DOSCalculator.from_calculator(calculator, shift_fermi_level=False).raw_dos(energies, width=0.0))
