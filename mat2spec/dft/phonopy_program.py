"""One phonon density of states by phonopy: a program of process.py, so that a calculator that hangs or crashes harms nobody.

Frequencies are in cm⁻¹, negative ones imaginary; lengths in Å. The cell is not relaxed, as the prediction is of this very crystal: forces
that atoms feel where they are cancel, since phonopy displaces both ways unless symmetry does. There is no LO–TO splitting.
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
"""Times that force constants are made symmetric and free of net forces."""


def compute(structure: dict[str, Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Forces of displaced supercells, force constants, frequencies on a mesh, linear tetrahedra."""
    import phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    lattice = np.reshape(structure["lattice"], (3, 3))
    frac_coords = np.reshape(structure["frac_coords"], (-1, 3))
    cell = PhonopyAtoms(numbers=structure["atomic_numbers"], cell=lattice, scaled_positions=frac_coords)
    lengths = np.linalg.norm(lattice, axis=1)
    supercell = np.maximum(1, np.ceil(settings["supercell_length"] / lengths - 1e-6)).astype(int)
    phonons: Any = phonopy.Phonopy(cell, supercell_matrix=np.diag(supercell), primitive_matrix=np.eye(3), log_level=0)
    phonons.generate_displacements(distance=settings["displacement"])
    found = forces_of([*phonons.supercells_with_displacements, phonons.primitive], settings, log)
    phonons.forces = found["forces"][:-1]
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
        "total_energy": found["energies"][-1],
        "supercell": supercell.tolist(),
        "q_mesh": mesh.tolist(),
        "version": phonopy.__version__,
        "cpu_seconds": found["cpu_seconds"],
    }


def forces_of(cells: list[Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Forces [eV/Å] and energies [eV] of all cells, and the CPU time that another process took for them [s]."""
    if "command" in settings:
        return forces_of_program(cells, settings, log)
    calculator = calculator_of(settings["calculator"])
    atoms = [atoms_of(cell, calculator) for cell in cells]
    return {
        "forces": [a.get_forces() for a in atoms],
        "energies": [float(a.get_potential_energy()) for a in atoms],
        "cpu_seconds": 0.0,
    }


def calculator_of(name: str) -> Any:
    """Make the ASE calculator that stands at module:name."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)()


def atoms_of(cell: Any, calculator: Any) -> Any:
    """A cell of phonopy as ASE takes it."""
    from ase import Atoms

    return Atoms(
        numbers=cell.numbers, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True, calculator=calculator
    )


def forces_of_program(cells: list[Any], settings: dict[str, Any], log: str) -> dict[str, Any]:
    """Let another Python compute them, as process.py does; it ends with this process, and has its limit of memory."""
    request = {
        "structure": {"cells": [structure_of(cell) for cell in cells]},
        "settings": settings,
        "function": "forces",
        "memory": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "parent": os.getpid(),
    }
    asked, answered = (Path(log).with_name(f"forces-{name}.json") for name in ("request", "answer"))
    asked.write_text(json.dumps(request))
    code = subprocess.run([*settings["command"], str(asked), str(answered)], check=False).returncode
    if not answered.exists():
        raise RuntimeError(
            f"the process of the forces died without an answer ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
        )
    answer = json.loads(answered.read_text())
    if answer.get("error_type") == "MemoryError":
        raise MemoryError(answer["error"])
    if "error" in answer:
        raise RuntimeError(f"{answer['error_type']}: {answer['error']}")
    return answer


def structure_of(cell: Any) -> dict[str, Any]:
    """Lattice and sites of a phonopy cell, laid out as in a row of a materials table."""
    return {
        "atomic_numbers": cell.numbers.tolist(),
        "lattice": np.ravel(cell.cell).tolist(),
        "frac_coords": np.ravel(cell.scaled_positions).tolist(),
    }
