"""One phonon density of states by phonopy: a program of process.py, so that a calculator that hangs or crashes harms nobody.

Frequencies are in cm⁻¹, negative ones imaginary; lengths in Å. The cell is not relaxed, as the prediction is of this very crystal: forces
that atoms feel where they are cancel, since phonopy displaces both ways unless symmetry does. There is no LO–TO splitting.
"""

from importlib import import_module
from typing import Any

import numpy as np

THZ = 33.35640951981521
"""[cm⁻¹]"""

ACOUSTIC_SUM_RULE = 1
"""Times that force constants are made symmetric and free of net forces."""


def density_of_states(structure: dict[str, Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Forces of displaced supercells, force constants, frequencies on a mesh, linear tetrahedra."""
    import phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(numbers=structure["atomic_numbers"], cell=structure["lattice"], scaled_positions=structure["frac_coords"])
    lengths = np.linalg.norm(structure["lattice"], axis=1)
    supercell = np.maximum(1, np.ceil(settings["supercell_length"] / lengths - 1e-6)).astype(int)
    phonons: Any = phonopy.Phonopy(cell, supercell_matrix=np.diag(supercell), primitive_matrix=np.eye(3), log_level=0)
    phonons.generate_displacements(distance=settings["displacement"])
    calculator = calculator_of(settings["calculator"])
    phonons.forces = [forces_of(displaced, calculator)[0] for displaced in phonons.supercells_with_displacements]
    phonons.produce_force_constants()
    phonons.symmetrize_force_constants(level=ACOUSTIC_SUM_RULE)
    mesh = np.maximum(1, np.round(settings["q_length"] / lengths)).astype(int)
    phonons.run_mesh(mesh.tolist(), is_gamma_center=True)
    frequencies = np.asarray(phonons.mesh.frequencies) * THZ
    step = settings["step"]
    first, last = np.floor(frequencies.min() / step) - 15, np.ceil(frequencies.max() / step) + 15
    phonons.run_total_dos(freq_min=first * step / THZ, freq_max=last * step / THZ, freq_pitch=step / THZ, use_tetrahedron_method=True)
    dos = phonons.total_dos
    return {
        "frequencies": (np.asarray(dos.frequency_points) * THZ).tolist(),
        "densities": (np.asarray(dos.dos) / THZ).tolist(),
        "min_frequency": float(frequencies.min()),
        "max_frequency": float(frequencies.max()),
        "total_energy": forces_of(phonons.primitive, calculator)[1],
        "supercell": supercell.tolist(),
        "q_mesh": mesh.tolist(),
        "version": phonopy.__version__,
    }


def calculator_of(name: str) -> Any:
    """Make the ASE calculator that stands at module:name."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)()


def forces_of(cell: Any, calculator: Any) -> tuple[np.ndarray, float]:
    """Forces [eV/Å] and energy [eV] of one cell."""
    from ase import Atoms

    atoms = Atoms(numbers=cell.numbers, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True, calculator=calculator)
    return atoms.get_forces(), float(atoms.get_potential_energy())
