"""Phonon densities of states of phonopy: total_dos.dat, mesh.yaml, and force constants in phonopy.yaml or beside it."""

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from monty.io import zopen

from mat2spec.dft.finished.structures import crystal_beside, crystal_of_cell, crystal_of_phonopy, read_yaml
from mat2spec.dos.curves import check_points
from mat2spec.dos.phonon import WAVENUMBERS_PER_THZ
from mat2spec.errors import CalculationError, StructureError
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import primitive_nsites

WAVENUMBERS: Mapping[str, float] = {"THz": WAVENUMBERS_PER_THZ, "meV": 8.065543937, "cm^-1": 1.0}
"""[cm⁻¹] Units of frequencies."""

MIN_MODES = 1500
"""Modes of a mesh: q-points times three times atoms. The label of fcc nickel is off by 0.0035 (MAE, maximum 1) with
8×8×8 points, which are 1,536 modes; by 0.016 with 6×6×6, by 0.0007 with 16×16×16. Networks are off by 0.047."""

MODES_TOLERANCE = 0.1
"""Relative error of the integral of total_dos.dat; coarse points and a wide smearing cost a few percent."""

HIGHEST = 1e5
"""[cm⁻¹] Higher frequencies are refused before a histogram of them is made."""

MESH_LENGTH = 100.0
"""[Å] Length that determines the mesh for force constants, in phonopy's sense: its own recommendation."""

STEP = 1.0
"""[cm⁻¹] Spacing of curves that are made here: a tenth of the Gaussian by which labels are smoothed."""

LARGEST_FORCE_CONSTANT = 1e6
"""In the units of any calculator. Larger ones, or NaN, end phonopy with a panic of its Rust code."""

_MARGIN = 15
"""Points of such a curve beyond its lowest and highest frequency."""

Curve = tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."], Crystal, Path]
"""Frequencies [cm⁻¹], densities in any unit, the crystal, and the file that its structure is from."""


def read_total_dos(path: Path, material_id: str, unit: str) -> Curve:
    """Read total_dos.dat: frequency and density in two columns.

    Raises:
        CalculationError: If it has other columns or is no table of numbers.
        SpectrumError: If its frequencies do not ascend, or a number is not finite.
        StructureError: If there is no structure beside it.
    """
    try:
        with zopen(path, "rt", encoding="utf-8") as stream:
            table = np.loadtxt(stream, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        rule = f"{path} cannot be read ({reason})"
        raise CalculationError(material_id, f"{rule}; write it again with phonopy --dos") from None
    if not len(table) or table.shape[1] != 2:
        rule = f"{path} has {len(table)} rows of {table.shape[1]} columns, total_dos.dat has two: frequency and density"
        raise CalculationError(material_id, f"{rule}; sum the columns of projected_dos.dat, or write total_dos.dat")
    crystal, source = crystal_beside(path, material_id)
    check_points(material_id, "frequencies", unit, table[:, 0], table[:, 1])
    _check_modes(path, float(np.trapezoid(table[:, 1], table[:, 0])), crystal)
    return table[:, 0] * WAVENUMBERS[unit], table[:, 1], crystal, source


def _check_modes(path: Path, modes: float, crystal: Crystal) -> None:
    """Refuse a curve that is cut: its integral is three modes for each atom of a primitive cell, or of several."""
    per_cell = 3 * primitive_nsites(crystal)
    cells = max(1.0, np.round(modes / per_cell))
    if not abs(modes / (cells * per_cell) - 1) <= MODES_TOLERANCE:
        rule = f"{path.name} holds {modes:.3g} modes, a primitive cell of {crystal.formula} has {per_cell}"
        way_out = "write total_dos.dat with all frequencies, and put the structure of the calculation beside it"
        raise CalculationError(crystal.material_id, f"{rule}; {way_out}")


def read_mesh(path: Path, material_id: str, unit: str) -> Curve:
    """Read mesh.yaml: frequencies at q-points with weights, as a histogram.

    Raises:
        CalculationError: If it lacks frequencies or weights, or has too few q-points.
        StructureError: If neither it nor a file beside it has the structure.
    """
    document = read_yaml(path, material_id)
    try:
        points = document["phonon"]
        weights = np.array([point["weight"] for point in points], np.float64)
        frequencies = np.array([[band["frequency"] for band in point["band"]] for point in points], np.float64)
        if frequencies.ndim != 2 or not frequencies.size:
            raise ValueError("no frequencies")
    except (KeyError, TypeError, ValueError) as error:
        rule = f"{path} lacks phonon, weight, band or frequency ({type(error).__name__}: {error})"
        raise CalculationError(material_id, f"{rule}; write it with phonopy --mesh") from None
    _check_mesh(path, material_id, document.get("mesh"), weights, frequencies * WAVENUMBERS[unit])
    modes = int(weights.sum()) * frequencies.shape[1]
    if modes < MIN_MODES:
        rule = f"its mesh has {modes} modes ({int(weights.sum())} q-points × {frequencies.shape[1]} bands)"
        raise CalculationError(material_id, f"{rule}, a smooth curve needs {MIN_MODES}; use a finer --mesh")
    if {"lattice", "points"} <= document.keys():
        crystal, source = crystal_of_cell(document, material_id, path.name), path
    else:
        crystal, source = crystal_beside(path, material_id)
    _check_bands(material_id, frequencies.shape[1], crystal, source)
    return *_histogram(frequencies * WAVENUMBERS[unit], weights), crystal, source


def _check_mesh(
    path: Path,
    material_id: str,
    mesh: Any,
    weights: Float64[np.ndarray, " points"],
    wavenumbers: Float64[np.ndarray, "points bands"],
) -> None:
    """Refuse a file that is cut, or with frequencies that no unit explains."""
    if isinstance(mesh, list) and all(isinstance(number, int) for number in mesh):
        points = int(np.prod(mesh))
        if weights.sum() != points:
            rule = f"the weights in {path.name} add up to {weights.sum():g}, its mesh has {points} q-points"
            raise CalculationError(material_id, f"{rule}; write it again with phonopy --mesh")
    if not np.abs(wavenumbers).max() < HIGHEST:  # also NaN
        rule = f"{path.name} has frequencies up to {np.abs(wavenumbers).max():.3g} cm⁻¹"
        raise CalculationError(material_id, f"{rule}; set --frequency-unit, or write it again with phonopy --mesh")


def _check_bands(material_id: str, bands: int, crystal: Crystal, source: Path) -> None:
    """Refuse a mesh of another cell: it has three bands for each atom of the primitive cell, or of a supercell."""
    if bands % 3 or ((len(crystal) * 3) % bands and bands % (len(crystal) * 3)):
        rule = f"it has {bands} bands, the {len(crystal)} atoms of {source.name} have {3 * len(crystal)}"
        raise CalculationError(material_id, f"{rule}; put the structure of the mesh beside it")


def _histogram(
    frequencies: Float64[np.ndarray, "points bands"], weights: Float64[np.ndarray, " points"]
) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, " bins"]]:
    """Count modes in bins of STEP; return their centers and densities [per cm⁻¹]."""
    first, last = np.floor(frequencies.min() / STEP) - _MARGIN, np.ceil(frequencies.max() / STEP) + _MARGIN
    edges = np.arange(first, last + 1) * STEP
    counts, _ = np.histogram(frequencies, edges, weights=np.broadcast_to(weights[:, None], frequencies.shape))
    return (edges[1:] + edges[:-1]) / 2, counts / STEP


def compute_dos(path: Path, material_id: str) -> Curve:
    """Compute a density of states from the force constants, or displacements and forces, of phonopy.yaml.

    They may be in the file itself or beside it (FORCE_SETS, FORCE_CONSTANTS, force_constants.hdf5, BORN), as
    phonopy-load reads them. The mesh has a length of MESH_LENGTH, densities are by tetrahedra.

    Raises:
        CalculationError: If there are none, or phonopy fails.
        StructureError: If its cell cannot be a crystal.
        ModuleNotFoundError: If phonopy is not installed.
    """
    import phonopy

    crystal = crystal_of_phonopy(path, material_id)
    if crystal is None:
        raise StructureError(material_id, f"{path} has no primitive or unit cell; write it again with phonopy")
    path = path.resolve()
    # phonopy looks for files beside the calculation in the current directory
    with contextlib.chdir(path.parent), warnings.catch_warnings(), recursion_limit_kept(), open_null() as null:
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(null):
                phonons: Any = phonopy.load(path.name, log_level=0)
                if phonons.force_constants is None:
                    raise CalculationError(
                        material_id,
                        f"{path} has no force constants and no forces, nor have files beside it; "
                        "put FORCE_SETS or FORCE_CONSTANTS there, or total_dos.dat",
                    )
                largest = np.abs(phonons.force_constants).max()
                if not largest < LARGEST_FORCE_CONSTANT:  # also NaN
                    rule = f"{path} has force constants up to {largest:.3g}, those of crystals are below 1000 eV/Å²"
                    raise CalculationError(material_id, f"{rule}; compute its forces again")
                return *_by_tetrahedra(phonons), crystal, path
        except CalculationError:
            raise
        except Exception as error:  # phonopy raises any kind of exception for files that do not fit each other
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            rule = f"phonopy cannot compute a density of states from {path} ({reason})"
            raise CalculationError(material_id, f"{rule}; try phonopy-load {path.name} --mesh 100 --dos") from None


@contextlib.contextmanager
def recursion_limit_kept() -> Iterator[None]:
    """Undo what symfc, which phonopy imports, does: with its limit of 100,000 a deeply nested JSON file ends Python."""
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@contextlib.contextmanager
def open_null() -> Any:
    """Sink for what phonopy prints."""
    with Path("/dev/null").open("w") as null:
        yield null


def _by_tetrahedra(phonons: Any) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]:
    """Frequencies [cm⁻¹] and densities of a phonopy object with force constants."""
    phonons.run_mesh(MESH_LENGTH)
    frequencies = np.asarray(phonons.mesh.frequencies) * WAVENUMBERS_PER_THZ
    step = STEP / WAVENUMBERS_PER_THZ
    first, last = np.floor(frequencies.min() / STEP) - _MARGIN, np.ceil(frequencies.max() / STEP) + _MARGIN
    phonons.run_total_dos(freq_min=first * step, freq_max=last * step, freq_pitch=step, use_tetrahedron_method=True)
    dos = phonons.total_dos
    return np.asarray(dos.frequency_points, np.float64) * WAVENUMBERS_PER_THZ, np.asarray(dos.dos, np.float64)
