"""How pymatgen, ASE and gemmi read the same files, with their defaults."""

import io
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import ase.io
import gemmi
from ase import Atoms
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifParser
from pymatgen.io.optimade import OptimadeStructureAdapter
from pymatgen.io.vasp import Poscar


def _cif_by_pymatgen(text: str) -> Structure:
    return CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")[0]


def _cif_by_gemmi(text: str) -> Structure:
    small = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text)[0])
    sites = small.get_all_unit_cell_sites()
    species = [{site.element.name: site.occ} for site in sites]
    lattice = Lattice.from_parameters(*small.cell.parameters)
    return Structure(lattice, species, [site.fract.tolist() for site in sites])


def _by_ase(text: str, kind: str) -> Structure:
    atoms = ase.io.read(io.StringIO(text), format=kind)
    assert isinstance(atoms, Atoms)
    if not atoms.pbc.all():
        raise ValueError("not periodic")
    structure = AseAtomsAdaptor.get_structure(atoms)
    partly = any(sum(kinds.values()) < 0.999 or len(kinds) > 1 for kinds in atoms.info.get("occupancy", {}).values())
    if partly:  # ASE keeps the occupancies beside the atoms
        structure.replace(0, {structure[0].specie: 0.5})
    return structure


def _json_by_pymatgen(text: str) -> Structure:
    document = json.loads(text)
    inner = document.get("structure", document)
    structure = Structure.from_dict(json.loads(inner) if isinstance(inner, str) else inner)
    if not all(structure.pbc):  # it keeps them, so that a user can see it
        raise ValueError("not periodic")
    return structure


def _optimade_by_pymatgen(text: str) -> Structure:
    document = json.loads(text)
    document = document.get("data", document)
    document = document[0] if isinstance(document, list) else document
    return OptimadeStructureAdapter.get_structure(document)


Reader = Callable[[str], Structure]

PEERS: dict[str, dict[str, Reader]] = {
    "CIF": {
        "pymatgen": _cif_by_pymatgen,
        "ASE": lambda text: _by_ase(text, "cif"),
        "gemmi": _cif_by_gemmi,
    },
    "POSCAR": {
        "pymatgen": lambda text: Poscar.from_str(text).structure,
        "ASE": lambda text: _by_ase(text, "vasp"),
    },
    "extXYZ": {"ASE": lambda text: _by_ase(text, "extxyz")},
    "JSON": {"pymatgen": _json_by_pymatgen},
    "OPTIMADE": {"pymatgen": _optimade_by_pymatgen},
}
"""Readers by the first word of a kind of file."""


class TooSlowError(Exception):
    """A reader did not finish in time."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Interrupt a reader that takes too long."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
