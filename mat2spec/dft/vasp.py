"""VASP, run by the user: the Materials Project's inputs are written, and finished calculations are read back in."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp import Vasprun
from pymatgen.io.vasp.sets import MPNonSCFSet, MPStaticSet, VaspInputSet

from mat2spec.crystal import Crystal
from mat2spec.dft.calculation import Calculation, Level, Limits, PendingError
from mat2spec.dos import METAL_GAP, band_edges
from mat2spec.errors import CalculationError

RESULTS = ("vasprun.xml", "vasprun.xml.gz")
STATIC, BANDS = "static", "dos"
"""Folders of the charge density and of the density of states in it."""


class Vasp:
    """The Materials Project's static calculation and its uniform non-self-consistent one, for somebody else to run.

    Args:
        folder: Where each material has a folder with both; default: the folder that a verification gives.
    """

    grid = "edos"
    level: Level = "dft"

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def check(self) -> None:
        """Nothing needs to be installed: inputs are text, with POTCAR.spec in place of potentials that only licensees have."""

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Names of the input sets."""
        return {"engine": "vasp", "static": MPStaticSet.__name__, "dos": f"{MPNonSCFSet.__name__} uniform"}

    def calculate(self, crystal: Crystal, limits: Limits, folder: Path) -> Calculation:
        """Read what VASP computed, or write what it is to compute.

        Raises:
            PendingError: If there is no result yet.
            CalculationError: If the result is damaged, not converged, or of another crystal.
        """
        material = (self._folder or folder) / re.sub(r"[^\w.-]", "_", crystal.material_id)
        found = [material / BANDS / name for name in RESULTS if (material / BANDS / name).exists()]
        if not found:
            write_inputs(crystal, material)
            raise PendingError(str(material))
        return read_result(crystal, found[0], self.settings(crystal))


def write_inputs(crystal: Crystal, folder: Path) -> None:
    """Write the inputs of both calculations; what is there already stays."""
    structure = Structure(Lattice(crystal.lattice), crystal.atomic_numbers.tolist(), crystal.frac_coords)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on potentials that are not here, and settings that are the Materials Project's
        sets: dict[str, VaspInputSet] = {
            STATIC: MPStaticSet(structure),
            BANDS: MPNonSCFSet(structure, mode="uniform", reciprocal_density=200),
        }
        for name, inputs in sets.items():
            if not (folder / name / "INCAR").exists():
                inputs.write_input(str(folder / name), potcar_spec=True)


def read_result(crystal: Crystal, file: Path, settings: dict[str, Any]) -> Calculation:
    """Read the density of states of a finished calculation.

    Raises:
        CalculationError: If it is damaged or not converged, or its composition is not that of the crystal.
    """
    name = crystal.material_id
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen's on a missing POTCAR
            run: Any = Vasprun(str(file), parse_potcar_file=False, parse_projected_eigen=False)
    except (SyntaxError, OSError, EOFError, KeyError, IndexError, ValueError) as error:  # SyntaxError: of both XML parsers
        raise CalculationError(name, f"{file} cannot be read ({' '.join(str(error).split())[:200]}); is VASP still running?") from None
    if not run.converged_electronic:
        raise CalculationError(name, f"{file}: the electrons did not converge; run it again with ALGO = All")
    if run.final_structure.composition.reduced_formula != crystal.formula:
        raise CalculationError(name, f"{file} is of {run.final_structure.composition.reduced_formula}, not {crystal.formula}")
    dos = run.tdos
    vbm, cbm = _edges(run)
    numbers = {
        "efermi": float(run.efermi),
        "vbm": vbm,
        "cbm": cbm,
        "band_gap": cbm - vbm,
        "total_energy": float(run.final_energy),
        "bands_cover_ev": min(float(eigenvalues[:, -1, 0].min()) for eigenvalues in run.eigenvalues.values()) - cbm,
    }
    cells = len(run.final_structure) / len(crystal)
    return Calculation(
        crystal,
        np.asarray(dos.energies, np.float64),
        np.asarray(dos.get_densities(), np.float64) / cells,
        numbers,
        f"vasp {run.vasp_version}",
        "dft",
        settings | {key: run.parameters[key] for key in ("ENMAX", "ISMEAR", "NEDOS", "ISPIN") if key in run.parameters},
        0.0,
    )


def _edges(run: Any) -> tuple[float, float]:
    """VBM and CBM from the eigenvalues where there is a gap between them, else from the curve."""
    gap, cbm, vbm, _ = run.eigenvalue_band_properties
    return (float(vbm), float(cbm)) if gap >= METAL_GAP and vbm <= cbm else band_edges(run.tdos)
