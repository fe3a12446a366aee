"""VASP engine: write the Materials Project's inputs for the user to run, and read finished calculations."""

import re
import warnings
from pathlib import Path
from typing import Any

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.vasp import Vasprun
from pymatgen.io.vasp.sets import MPNonSCFSet, MPStaticSet, VaspInputSet

from mat2spec.dft.engine import Calculation, Limits, PendingError, calculation_key
from mat2spec.dft.vasp_bands import curve_of, vasp_band_edges
from mat2spec.errors import CalculationError
from mat2spec.structure.crystal import Crystal

RESULTS = ("vasprun.xml", "vasprun.xml.gz")
STATIC, BANDS = "static", "dos"
"""Folders of the charge density, and of the density of states computed from it."""

_RECORDED_PARAMETERS = ("ENMAX", "ISMEAR", "NEDOS", "ISPIN", "LSORBIT", "GGA")
"""Parameters of VASP that are stored with the settings of a result."""


class Vasp:
    """The Materials Project's static and uniform non-self-consistent calculations, which the user runs.

    Args:
        folder: Parent of the calculations' folders: ID-KEY, with both inputs, or ID, created by the user.
    """

    grid = "edos"
    runs_on_cluster = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """Accept any machine: inputs are text, with POTCAR.spec in place of potentials that only licensees have."""

    def settings(self, crystal: Crystal) -> dict[str, Any]:
        """Return the names of the input sets."""
        return {"engine": "vasp", "static": MPStaticSet.__name__, "dos": f"{MPNonSCFSet.__name__} uniform"}

    def check_crystal(self, crystal: Crystal) -> None:
        """Accept every crystal: the input sets contain magnetic moments and the Materials Project's Hubbard U."""

    def calculate(self, crystal: Crystal, limits: Limits, *, safer: bool = False) -> Calculation:
        """Read VASP's result, or write its inputs.

        Raises:
            PendingError: If there is no result yet.
            CalculationError: If the result is damaged, not converged, or belongs to another crystal.
        """
        settings = self.settings(crystal)
        name = re.sub(r"[^\w.-]", "_", crystal.material_id)
        folder = self._folder / f"{name}-{calculation_key(crystal, settings)[:8]}"
        candidates = (folder / BANDS, self._folder / name / BANDS, self._folder / name)
        results = [path / result for path in candidates for result in RESULTS if (path / result).exists()]
        if not results:
            write_inputs(crystal, folder)
            raise PendingError(str(folder))
        return read_result(crystal, results[0], settings)


def write_inputs(crystal: Crystal, folder: Path) -> None:
    """Write the inputs of both calculations; existing ones are left unchanged."""
    structure = crystal.to_structure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing potentials, and settings that are the Materials Project's
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
        CalculationError: If it is damaged or not converged, its structure is not the crystal, or its bands and its
            curve disagree.
        SpectrumError: If its Fermi level is missing or not among its states.
    """
    run = parse_vasprun(crystal.material_id, file)
    _check_structure(crystal, run.final_structure, file)
    energies, channels = curve_of(run)
    vbm, cbm = vasp_band_edges(crystal.material_id, run)
    numbers = {
        "efermi": float(run.efermi),
        "vbm": vbm,
        "cbm": cbm,
        "band_gap": cbm - vbm,
        "total_energy": float(run.final_energy) * len(crystal) / len(run.final_structure),
        "bands_cover_ev": min(float(eigenvalues[:, -1, 0].min()) for eigenvalues in run.eigenvalues.values()) - cbm,
    }
    parameters = {name: run.parameters[name] for name in _RECORDED_PARAMETERS if name in run.parameters}
    return Calculation(
        crystal,
        energies,
        channels.sum(axis=0) * len(crystal) / len(run.final_structure),
        numbers,
        f"vasp {run.vasp_version}",
        "dft",
        settings | {"file": str(file)} | parameters,
        0.0,
    )


def parse_vasprun(name: str, file: Path) -> Any:
    """Read vasprun.xml as pymatgen's `Vasprun`, without a POTCAR.

    Args:
        name: Name of the material in errors.
        file: vasprun.xml, compressed or not.

    Raises:
        CalculationError: If it is damaged, not converged or has no density of states.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a missing POTCAR
            run: Any = Vasprun(str(file), parse_potcar_file=False, parse_projected_eigen=False)
            converged = run.converged_electronic
            has_states = run.tdos is not None and bool(run.eigenvalues)
    except (SyntaxError, OSError, EOFError, LookupError, ValueError, AttributeError) as error:
        # Both XML parsers raise SyntaxError.
        raise CalculationError(
            name, f"{file} cannot be read ({' '.join(str(error).split())[:200]}); is VASP still running?"
        ) from None
    if not converged:
        raise CalculationError(name, f"{file}: the electrons did not converge; rerun it with ALGO = All")
    if not has_states:
        raise CalculationError(name, f"{file} has no density of states; is it from the folder {BANDS}?")
    return run


def _check_structure(crystal: Crystal, structure: Structure, file: Path) -> None:
    """Refuse a result for another crystal; one relaxed by less than a few percent is the same crystal."""
    formula = structure.composition.reduced_formula
    if formula != crystal.formula:
        raise CalculationError(crystal.material_id, f"{file} is for {formula}, not {crystal.formula}")
    if not StructureMatcher(scale=False).fit(crystal.to_structure(), structure):
        raise CalculationError(crystal.material_id, f"{file} is for another structure of {crystal.formula}; replace it")
