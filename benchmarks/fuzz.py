"""Damaged structure files by the thousand: each must end in crystals or in one line that says why not, and soon.

    python benchmarks/fuzz.py [--cases 10000] [--seed 0]

Real CIFs, and the structures in them as POSCAR, extXYZ, pymatgen's JSON and OPTIMADE, lose slices, have them doubled, and get junk put in,
as a broken transfer or a careless hand would do it. The same seed makes the same cases. If any case raises, the exit code is 1 and its file
is written into the current directory.
"""

import argparse
import io
import json
import random
import sys
import tarfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ase.io
import pyarrow as pa
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.optimade import OptimadeStructureAdapter

from mat2spec.config import ReadingConfig
from mat2spec.errors import StructureError
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers.formats import read_structures

CIFS = Path(__file__).parents[1] / "tests/data/cifs.tar.zst"

LARGEST = 20_000
"""[bytes] Larger files say nothing more, and take longer."""

JUNK = [b"'", b'"', b"\n;", b"\nloop_\n", b"\ndata_x\n", b"?", b"-", b"1e400", b"nan", b"0"]
JUNK += [b"(", b"{", b"[", b"]", b"null", b"D", b"\0", b"\xff"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of the parsers that write the seeds
    chance = random.Random(arguments.seed)
    seeds = make_seeds(chance)
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest = (0.0, "")
    for case in range(arguments.cases):
        name, content = chance.choice(seeds)
        content = damage(content, chance)
        start = time.perf_counter()
        outcome = read(name, content)
        slowest = max(slowest, (time.perf_counter() - start, f"case {case}, {name}"))
        if outcome == "raised":
            Path(f"fuzz-{case}-{name}").write_bytes(content)
        outcomes[name, outcome] += 1
    print(f"{arguments.cases} damaged files, seed {arguments.seed}; {environment()['hardware']}")
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"{name:>14} {outcome:>9} {count:6}")
    print(f"slowest: {slowest[0]:.2f} s, {slowest[1]}")
    return int(any(outcome == "raised" for _, outcome in outcomes))


def read(name: str, content: bytes) -> str:
    """Read a file; say what came of it."""
    try:
        found = [parsed.crystal for parsed in read_structures(name, content, ReadingConfig())]
    except Exception:
        traceback.print_exc()
        return "raised"
    if not found or any(isinstance(crystal, StructureError) and "\n" in str(crystal) for crystal in found):
        return "raised"
    return "read" if all(isinstance(crystal, Crystal) for crystal in found) else "refused"


def damage(content: bytes, chance: random.Random) -> bytes:
    """One to four times: delete, keep or double a slice, and put something in."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(content) + 1)
        piece = content[start : start + chance.randint(0, 60)]
        junk = chance.choice([b"", chance.choice(JUNK), chance.randbytes(chance.randint(1, 8))])
        content = content[:start] + piece * chance.randint(0, 2) + junk + content[start + len(piece) :]
    return content


def make_seeds(chance: random.Random) -> list[tuple[str, bytes]]:
    """Good files: their name, which tells the format, and content."""
    with pa.CompressedInputStream(str(CIFS), "zstd") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        cifs = [archive.extractfile(member).read() for member in archive if member.name.endswith(".cif")]  # type: ignore[union-attr]
    cifs = [cif for cif in cifs if len(cif) < LARGEST]
    crystals = [
        parsed.crystal for cif in chance.sample(cifs, 20) for parsed in read_structures("a.cif", cif, ReadingConfig())
    ]
    structures = [Structure(c.lattice, c.atomic_numbers, c.frac_coords) for c in crystals if isinstance(c, Crystal)]
    written = [(name, write(structure).encode()) for structure in structures for name, write in FORMATS.items()]
    return written + [("a.cif", cif) for cif in chance.sample(cifs, 40)]


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

if __name__ == "__main__":
    sys.exit(main())
