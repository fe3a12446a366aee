"""Phonon density of states by phonopy: a program of process_main.py, so that a calculator may hang or crash.

Frequencies are in cm⁻¹, negative ones imaginary; lengths in Å. The cell is not relaxed, because the prediction is for
this very crystal; residual forces cancel, since phonopy displaces in both directions unless symmetry makes them
equivalent. There is no LO–TO splitting.
"""

import json
import os
import resource
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

THZ = 33.35640951981521
"""[cm⁻¹]"""

ACOUSTIC_SUM_RULE = 1
"""How many times force constants are made symmetric and free of net forces."""


def compute(structure: dict[str, Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Compute forces of displaced supercells, force constants, frequencies on a mesh, and their density of states."""
    import phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    lattice = np.reshape(structure["lattice"], (3, 3))
    frac_coords = np.reshape(structure["frac_coords"], (-1, 3))
    cell = PhonopyAtoms(numbers=structure["atomic_numbers"], cell=lattice, scaled_positions=frac_coords)
    lengths = np.linalg.norm(lattice, axis=1)
    supercell = np.maximum(1, np.ceil(settings["supercell_length"] / lengths - 1e-6)).astype(int)
    phonons: Any = phonopy.Phonopy(cell, supercell_matrix=np.diag(supercell), primitive_matrix=np.eye(3), log_level=0)
    phonons.generate_displacements(distance=settings["displacement"])
    results = compute_forces([*phonons.supercells_with_displacements, phonons.primitive], settings, log)
    phonons.forces = results["forces"][:-1]
    phonons.produce_force_constants()
    phonons.symmetrize_force_constants(level=ACOUSTIC_SUM_RULE)
    mesh = np.maximum(1, np.round(settings["q_length"] / lengths)).astype(int)
    phonons.run_mesh(mesh.tolist(), is_gamma_center=True)
    frequencies = np.asarray(phonons.mesh.frequencies) * THZ
    step = settings["step"]
    first, last = np.floor(frequencies.min() / step) - 15, np.ceil(frequencies.max() / step) + 15
    phonons.run_total_dos(
        freq_min=first * step / THZ, freq_max=last * step / THZ, freq_pitch=step / THZ, use_tetrahedron_method=True
    )
    dos = phonons.total_dos
    return {
        "frequencies": (np.asarray(dos.frequency_points) * THZ).tolist(),
        "densities": (np.asarray(dos.dos) / THZ).tolist(),
        "min_frequency": float(frequencies.min()),
        "max_frequency": float(frequencies.max()),
        "total_energy": results["energies"][-1],
        "supercell": supercell.tolist(),
        "q_mesh": mesh.tolist(),
        "version": phonopy.__version__,
        "cpu_seconds": results["cpu_seconds"],
    }


def compute_forces(cells: list[Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Return forces [eV/Å] and energies [eV] of all cells, and the CPU time of a separate process for them [s]."""
    if "command" in settings:
        return run_force_program(cells, settings, log)
    calculator = load_calculator(settings["calculator"])
    atoms = [to_atoms(cell, calculator) for cell in cells]
    return {
        "forces": [a.get_forces() for a in atoms],
        "energies": [float(a.get_potential_energy()) for a in atoms],
        "cpu_seconds": 0.0,
    }


def load_calculator(name: str) -> Any:
    """Create the ASE calculator at module:name."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)()


def to_atoms(cell: Any, calculator: Any) -> Any:
    """Return the ASE atoms of a phonopy cell."""
    from ase import Atoms

    return Atoms(
        numbers=cell.numbers, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True, calculator=calculator
    )


def run_force_program(cells: list[Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Compute forces with process_main.py in another Python; it ends with this process, and has its memory limit."""
    request = {
        "structure": {"cells": [structure_row(cell) for cell in cells]},
        "settings": settings,
        "function": "forces",
        "memory": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "parent": os.getpid(),
    }
    request_file = Path(log).with_name("forces-request.json")
    answer_file = Path(log).with_name("forces-answer.json")
    request_file.write_text(json.dumps(request))
    command = [*settings["command"], str(request_file), str(answer_file)]
    exit_code = subprocess.run(command, check=False).returncode
    if not answer_file.exists():
        cause = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        raise RuntimeError(f"the process that computes forces died without an answer ({cause})")
    answer = json.loads(answer_file.read_text())
    if answer.get("error_type") == "MemoryError":
        raise MemoryError(answer["error"])
    if "error" in answer:
        raise RuntimeError(f"{answer['error_type']}: {answer['error']}")
    return answer


def structure_row(cell: Any) -> dict[str, Any]:
    """Lattice and sites of a phonopy cell, laid out as in a row of a materials table."""
    return {
        "atomic_numbers": cell.numbers.tolist(),
        "lattice": np.ravel(cell.cell).tolist(),
        "frac_coords": np.ravel(cell.scaled_positions).tolist(),
    }
