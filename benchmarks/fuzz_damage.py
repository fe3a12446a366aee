"""Damaged structure files: slices of real ones removed or repeated, and junk inserted, as a broken transfer does."""

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import ase.io
import pyarrow as pa
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.optimade import OptimadeStructureAdapter

from mat2spec.config import ReadingConfig
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.formats import read_structures

CIFS = Path(__file__).parents[1] / "tests/data/cifs.tar.zst"

LARGEST = 20_000
"""[bytes] Larger files show nothing more, and take longer."""

JUNK = [b"'", b'"', b"\n;", b"\nloop_\n", b"\ndata_x\n", b"?", b"-", b"1e400", b"nan", b"0"]
JUNK += [b"(", b"{", b"[", b"]", b"null", b"D", b"\0", b"\xff"]


def damage(content: bytes, rng: random.Random) -> bytes:
    """Remove, keep or repeat a slice, and insert something; one to four times."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content) + 1)
        piece = content[start : start + rng.randint(0, 60)]
        junk = rng.choice([b"", rng.choice(JUNK), rng.randbytes(rng.randint(1, 8))])
        content = content[:start] + piece * rng.randint(0, 2) + junk + content[start + len(piece) :]
    return content


def make_seeds(rng: random.Random) -> list[tuple[str, bytes]]:
    """Undamaged files: name, which determines the format, and content."""
    with pa.CompressedInputStream(str(CIFS), "zstd") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        files = (archive.extractfile(member) for member in archive if member.name.endswith(".cif"))
        cifs = [file.read() for file in files if file]
    cifs = [cif for cif in cifs if len(cif) < LARGEST]
    crystals = [
        parsed.crystal for cif in rng.sample(cifs, 20) for parsed in read_structures("a.cif", cif, ReadingConfig())
    ]
    structures = [c.to_structure() for c in crystals if isinstance(c, Crystal)]
    written = [(name, write(structure).encode()) for structure in structures for name, write in FORMATS.items()]
    return written + [("a.cif", cif) for cif in rng.sample(cifs, 40)]


def extxyz(structure: Structure) -> str:
    sink = io.StringIO()
    ase.io.write(sink, AseAtomsAdaptor.get_atoms(structure), format="extxyz")
    return sink.getvalue()


def optimade(structure: Structure) -> str:
    entry = OptimadeStructureAdapter.get_optimade_structure(structure)
    return json.dumps({"data": [{"id": "x", "type": "structures", "attributes": entry["attributes"]}]}, default=str)


FORMATS: dict[str, Callable[[Structure], str]] = {
    "POSCAR": lambda structure: structure.to(fmt="poscar"),
    "a.xyz": extxyz,
    "pymatgen.json": lambda structure: json.dumps(structure.as_dict()),
    "optimade.json": optimade,
}
