"""Electronic density of states or forces by GPAW: a program of process_main.py, run by the Python that has GPAW.

Energies are in eV on the zero of the calculation, lengths in Å. PBE, plane waves, no spin, no spin-orbit coupling.
"""

from typing import Any

import numpy as np

BANDS_MARGIN = 0.5
"""[eV] How far the highest band is meant to reach beyond the end of the curve, so that the solver can check it."""

MAX_FORCE_CHANGE = 1e-4
"""[eV/Å] Between the last self-consistency steps. A displacement of 0.01 Å causes forces of 0.01 to 0.3 eV/Å."""


def compute(structure: dict[str, Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Compute a charge density, its bands on a denser mesh, and their density of states on a uniform energy grid."""
    from gpaw import __version__

    atoms = to_atoms(structure)
    needed = settings["above_ev"] + BANDS_MARGIN
    scf_mesh = k_mesh(atoms.cell.array, len(atoms), settings["kppra_scf"], settings["even_mesh"])
    mesh = k_mesh(atoms.cell.array, len(atoms), settings["kppra_dos"], settings["even_mesh"])
    calculator = ground_state(scf_mesh, settings, log, nbands=estimate_bands(atoms, needed))
    atoms.calc = calculator
    total_energy = atoms.get_potential_energy()
    electrons = round(calculator.get_number_of_electrons())
    bands = denser_bands(calculator, mesh, settings, electrons)
    eigenvalues, weights = read_eigenvalues(bands)
    efermi, vbm, cbm = band_edges(eigenvalues, weights, electrons, settings["smearing_ev"], settings["metal_gap"])
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
    """Compute forces [eV/Å] and energies [eV] of several cells."""
    from gpaw import __version__

    results: dict[str, Any] = {"forces": [], "energies": [], "engine_version": f"gpaw {__version__}"}
    for cell in structure["cells"]:
        atoms = to_atoms(cell)
        mesh = k_mesh(atoms.cell.array, len(atoms), settings["kppra_scf"], settings["even_mesh"])
        atoms.calc = ground_state(mesh, settings, log, convergence={"forces": MAX_FORCE_CHANGE})
        results["forces"].append(atoms.get_forces().tolist())
        results["energies"].append(float(atoms.get_potential_energy()))
    return results


def to_atoms(structure: dict[str, Any]) -> Any:
    """ASE atoms of a row of a materials table: `Crystal.to_atoms` for a Python that need not have mat2spec."""
    import numpy as np
    from ase import Atoms

    lattice = np.reshape(structure["lattice"], (3, 3))
    frac_coords = np.reshape(structure["frac_coords"], (-1, 3))
    return Atoms(structure["atomic_numbers"], cell=lattice, scaled_positions=frac_coords, pbc=True)


def ground_state(mesh: list[int], settings: dict[str, Any], log: str, **options: Any) -> Any:
    """Return a calculator for the charge density."""
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
        **options,
    )


def k_mesh(lattice: np.ndarray, natoms: int, kppra: float, even: bool) -> list[int]:
    """Return a Γ-centered mesh of about kppra k-points per reciprocal atom, as evenly spaced as integers allow.

    An even mesh contains the zone boundary, where most band edges are that are not at Γ.
    """
    lengths = np.linalg.norm(np.linalg.inv(lattice), axis=0)
    ideal = lengths * (kppra / natoms / lengths.prod()) ** (1 / 3)
    return [max(2, 2 * round(float(n) / 2)) if even else max(1, round(float(n))) for n in ideal]


def estimate_bands(atoms: Any, above_ev: float) -> int:
    """Return a first guess of the number of bands that reach above_ev over the Fermi level.

    It is the sum of occupied bands, bands of free electrons with a Fermi energy of 5 eV in this volume, and empty d
    and f shells.
    """
    from gpaw.setup import create_setup

    electrons = sum(create_setup(symbol, "PBE").Nv for symbol in atoms.symbols)
    free = atoms.get_volume() * ((above_ev + 5.0) / 3.81) ** 1.5 / (6 * np.pi**2)
    narrow = sum(bands_of_empty_shells(int(z)) for z in atoms.numbers)
    return int(electrons / 2) + int(np.ceil(0.8 * free)) + narrow + 2


def bands_of_empty_shells(z: int) -> int:
    """Return the number of bands of empty d (and f) shells near the Fermi level: K to Cu and below, La and Ce."""
    for first, last in ((19, 29), (37, 47), (55, 79)):
        if first <= z <= last:
            return (5 if z < last - 3 else 1) + (7 if z in (57, 58) else 0)
    return 0


def denser_bands(calculator: Any, mesh: list[int], settings: dict[str, Any], electrons: int) -> Any:
    """Compute bands on a denser mesh in a fixed density, adding bands until the highest reaches far enough."""
    from gpaw import KohnShamConvergenceError

    nbands = calculator.get_number_of_bands()
    for _attempt in range(4):
        convergence = {"bands": f"CBM+{settings['above_ev']}"}
        bands = None
        unconverged = None
        try:
            bands = calculator.fixed_density(
                kpts={"size": mesh, "gamma": True},
                nbands=nbands,
                convergence=convergence,
                txt=None,
                maxiter=settings["max_band_iterations"],
            )
        except KohnShamConvergenceError as error:
            unconverged = error
        if bands is not None:
            eigenvalues, weights = read_eigenvalues(bands)
            _, _, cbm = band_edges(eigenvalues, weights, electrons, settings["smearing_ev"], settings["metal_gap"])
            if eigenvalues[:, -1].min() - cbm >= settings["above_ev"]:
                return bands
        nbands += max(4, (nbands - electrons // 2) // 2)
    raise unconverged or RuntimeError(f"{nbands} bands do not reach {settings['above_ev']} eV above the CBM")


def read_eigenvalues(calculator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (k-points, bands) [eV], and the weights of the k-points, which add up to one."""
    weights = np.array(calculator.get_k_point_weights())
    return np.array([calculator.get_eigenvalues(kpt=k) for k in range(len(weights))]), weights


def band_edges(
    eigenvalues: np.ndarray, weights: np.ndarray, electrons: int, smearing: float, metal_gap: float
) -> tuple[float, float, float]:
    """Return Fermi level, VBM and CBM of these bands [eV]; all are the Fermi level if the gap is below metal_gap.

    GPAW 22.8 keeps the Fermi level of the coarser mesh in a fixed density: up to 0.27 eV off in metals.
    """
    if electrons % 2 == 0:
        vbm, cbm = float(eigenvalues[:, electrons // 2 - 1].max()), float(eigenvalues[:, electrons // 2].min())
        if cbm - vbm >= metal_gap:
            return (vbm + cbm) / 2, vbm, cbm
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    while high - low > 1e-9:
        middle = (low + high) / 2
        filled = 2 * (weights @ (1 / (1 + np.exp(np.clip((eigenvalues - middle) / smearing, -200, 200))))).sum()
        low, high = (middle, high) if filled < electrons else (low, middle)
    return low, low, low


def tetrahedron_dos(calculator: Any, energies: np.ndarray) -> np.ndarray:
    """Return the density of states [states/eV per cell] by linear tetrahedra; GPAW 22.8 assumes uniform energies."""
    from gpaw.dos import DOSCalculator

    return np.asarray(DOSCalculator.from_calculator(calculator, shift_fermi_level=False).raw_dos(energies, width=0.0))
