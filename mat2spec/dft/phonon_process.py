"""One phonon density of states by phonopy, as a process of its own, so that a calculator that hangs or crashes harms nobody.

`python phonon_process.py REQUEST.json ANSWER.json`. Frequencies in cm⁻¹, negative ones imaginary; lengths in Å. Forces are those at atoms
displaced from where the request has them: the cell is not relaxed, as the prediction is of this very crystal. No LO–TO splitting.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

THZ = 33.35640951
"""[cm⁻¹]"""


def main(request_file: str, answer_file: str) -> None:
    """Compute what the request asks; whatever goes wrong is an answer too."""
    request = json.loads(Path(request_file).read_text())
    started = time.process_time()
    try:
        answer = density_of_states(request["structure"], request["settings"])
        answer["cpu_seconds"] = time.process_time() - started
    except Exception as error:
        answer = {"error_type": type(error).__name__, "error": " ".join(str(error).split()) or type(error).__name__}
    partial = Path(f"{answer_file}.part")
    partial.write_text(json.dumps(answer))
    os.replace(partial, answer_file)


def density_of_states(structure: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
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
    phonons.symmetrize_force_constants()
    mesh = np.maximum(1, np.round(settings["q_length"] / lengths)).astype(int)
    phonons.run_mesh(mesh.tolist(), is_gamma_center=True)
    frequencies = np.asarray(phonons.get_mesh_dict()["frequencies"])
    low, high, step = frequencies.min() * THZ, frequencies.max() * THZ, settings["step"]
    first, last = np.floor(low / step) - 15, np.ceil(high / step) + 15
    phonons.run_total_dos(freq_min=first * step / THZ, freq_max=last * step / THZ, freq_pitch=step / THZ, use_tetrahedron_method=True)
    dos = phonons.get_total_dos_dict()
    return {
        "frequencies": (np.asarray(dos["frequency_points"]) * THZ).tolist(),
        "densities": (np.asarray(dos["total_dos"]) / THZ).tolist(),
        "min_frequency": float(low),
        "max_frequency": float(high),
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


if __name__ == "__main__":
    del sys.path[0]  # this folder, in which modules have the names of packages
    main(*sys.argv[1:])
