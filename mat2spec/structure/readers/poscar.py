"""POSCAR files of VASP as structures."""

from collections.abc import Sequence

import numpy as np
from pymatgen.core import Structure

_FLAGS = {"T", "F", ".TRUE.", ".FALSE."}


def read_poscar(text: str) -> Structure:
    """Read a POSCAR or CONTCAR.

    Raises:
        ValueError: If it declares more sites than it has lines, or names no elements.
    """
    from pymatgen.io.vasp.inputs import Poscar  # a second, for spectra and plots of VASP

    lines = text.splitlines()
    sites = max(sum(int(word) for word in line.split() if word.isdecimal()) for line in [*lines[5:7], ""])
    if sites > len(lines):  # pymatgen would allocate memory for all declared sites
        raise ValueError(f"it declares {sites} sites in {len(lines)} lines")
    poscar = Poscar.from_str(_with_positive_scale(lines))
    if not poscar.true_names or _flags_taken_for_fluorine(lines):  # pymatgen assumes H, He, Li …, or fluorine
        raise ValueError("it names no elements (VASP 4 format); add a line with their symbols above the atom counts")
    return poscar.structure


def _with_positive_scale(lines: Sequence[str]) -> str:
    """Replace a negative scale, the volume of the cell, by the factor of all lengths: pymatgen scales only the cell."""
    words = lines[1].partition("#")[0].partition("!")[0].split()
    if len(words) == 3:
        raise ValueError("it has three scale factors; scale lattice and Cartesian positions by them and write 1.0")
    scale = float(words[0])
    if scale < 0:
        volume = abs(np.linalg.det([[float(word) for word in line.split()[:3]] for line in lines[2:5]]))
        scale = (-scale / volume) ** (1 / 3)
        lines = [lines[0], repr(float(scale)), *lines[2:]]
    return "\n".join(lines)


def _flags_taken_for_fluorine(lines: Sequence[str]) -> bool:
    """Whether a file of VASP 4, without "Selective dynamics", has the flags F F F behind its coordinates."""
    if not lines[5].split()[0].isdecimal() or lines[6].strip()[:1] in "sS":
        return False
    return any(len(words := line.split()) > 5 and {word.upper() for word in words[3:6]} <= _FLAGS for line in lines[7:])
