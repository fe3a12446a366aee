"""VASP, run by the user: the Materials Project's inputs are written, and finished calculations are read back in."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.vasp import Vasprun
from pymatgen.io.vasp.sets import MPNonSCFSet, MPStaticSet, VaspInputSet

from mat2spec.dft.engine import Calculation, Limits, PendingError, calculation_key
from mat2spec.dos.electronic import METAL_GAP, band_edges
from mat2spec.errors import CalculationError
from mat2spec.structure.crystal import Crystal

RESULTS = ("vasprun.xml", "vasprun.xml.gz")
STATIC, BANDS = "static", "dos"
"""Folders of the charge density and of the density of states in it."""

_KEPT = ("ENMAX", "ISMEAR", "NEDOS", "ISPIN", "LSORBIT", "GGA")
"""Of VASP's own parameters, what goes with the settings of a result."""


class Vasp:
    """The Materials Project's static calculation and its uniform non-self-consistent one, for somebody else to run.

    Args:
        folder: Where each calculation has a folder: ID-KEY, with both inputs, or one that the user made, ID.
    """

    grid = "edos"
    runs_on_cluster = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """Nothing needs to be installed: inputs are text, with POTCAR.spec in place of potentials that only licensees have."""

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Names of the input sets."""
        return {"engine": "vasp", "static": MPStaticSet.__name__, "dos": f"{MPNonSCFSet.__name__} uniform"}

    def check_crystal(self, crystal: Crystal) -> None:
        """Refuse nothing: the input sets give magnetic elements their moments, and the Hubbard U of the Materials Project."""

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Read what VASP computed, or write what it is to compute.

        Raises:
            PendingError: If there is no result yet.
            CalculationError: If the result is damaged, not converged, or of another crystal.
        """
        settings = self.settings(crystal)
        name = re.sub(r"[^\w.-]", "_", crystal.material_id)
        ours = self._folder / f"{name}-{calculation_key(crystal, settings)[:8]}"
        places = (ours / BANDS, self._folder / name / BANDS, self._folder / name)
        found = [place / result for place in places for result in RESULTS if (place / result).exists()]
        if not found:
            write_inputs(crystal, ours)
            raise PendingError(str(ours))
        return read_result(crystal, found[0], settings)


def write_inputs(crystal: Crystal, folder: Path) -> None:
    """Write the inputs of both calculations; what is there already stays."""
    structure = crystal.to_structure()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # on potentials that are not here, and settings that are the Materials Project's
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
        CalculationError: If it is damaged or not converged, or its structure is not that of the crystal.
    """
    run = _parse(crystal.material_id, file)
    _check_structure(crystal, run.final_structure, file)
    dos = run.tdos
    vbm, cbm = _edges(run)
    numbers = {
        "efermi": float(run.efermi),
        "vbm": vbm,
        "cbm": cbm,
        "band_gap": cbm - vbm,
        "total_energy": float(run.final_energy) * len(crystal) / len(run.final_structure),
        "bands_cover_ev": min(float(eigenvalues[:, -1, 0].min()) for eigenvalues in run.eigenvalues.values()) - cbm,
    }
    return Calculation(
        crystal,
        np.asarray(dos.energies, np.float64),
        np.asarray(dos.get_densities(), np.float64) * len(crystal) / len(run.final_structure),
        numbers,
        f"vasp {run.vasp_version}",
        "dft",
        settings | {"file": str(file)} | {key: run.parameters[key] for key in _KEPT if key in run.parameters},
        0.0,
    )


def _parse(name: str, file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen's on a missing POTCAR
            run: Any = Vasprun(str(file), parse_potcar_file=False, parse_projected_eigen=False)
            converged, there = run.converged_electronic, run.tdos is not None and bool(run.eigenvalues)
    except (
        SyntaxError,
        OSError,
        EOFError,
        LookupError,
        ValueError,
        AttributeError,
    ) as error:  # SyntaxError: of both XML parsers
        raise CalculationError(
            name, f"{file} cannot be read ({' '.join(str(error).split())[:200]}); is VASP still running?"
        ) from None
    if not converged:
        raise CalculationError(name, f"{file}: the electrons did not converge; run it again with ALGO = All")
    if not there:
        raise CalculationError(name, f"{file} holds no density of states; is it that of the calculation in {BANDS}?")
    return run


def _check_structure(crystal: Crystal, found: Structure, file: Path) -> None:
    """Refuse a result of another crystal: relaxed by less than a few percent is the same."""
    if found.composition.reduced_formula != crystal.formula:
        raise CalculationError(
            crystal.material_id, f"{file} is of {found.composition.reduced_formula}, not {crystal.formula}"
        )
    if not StructureMatcher(scale=False).fit(crystal.to_structure(), found):
        raise CalculationError(
            crystal.material_id, f"{file} is of another structure of {crystal.formula}; put the right one there"
        )


def _edges(run: Any) -> tuple[float, float]:
    """VBM and CBM from the eigenvalues where there is a gap between them, else from the curve."""
    gap, cbm, vbm, _ = run.eigenvalue_band_properties
    return (float(vbm), float(cbm)) if gap >= METAL_GAP and vbm <= cbm else band_edges(run.tdos)
