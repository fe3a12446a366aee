"""Fuzzing of the structure readers: every damaged file must give crystals or a one-line error, and quickly.

    python benchmarks/fuzz.py [--cases 10000] [--seed 0]

Slices of real CIFs, and of the structures in them as POSCAR, extXYZ, pymatgen's JSON and OPTIMADE, are removed or
repeated, and junk is inserted, as a broken transfer or a careless edit would do. The same seed makes the same cases.
If any case raises, the exit code is 1 and its file is written into the current directory.
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
"""[bytes] Larger files show nothing more, and take longer."""

JUNK = [b"'", b'"', b"\n;", b"\nloop_\n", b"\ndata_x\n", b"?", b"-", b"1e400", b"nan", b"0"]
JUNK += [b"(", b"{", b"[", b"]", b"null", b"D", b"\0", b"\xff"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # raised by the parsers that write the seeds
    rng = random.Random(arguments.seed)
    seeds = make_seeds(rng)
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest = (0.0, "")
    for case in range(arguments.cases):
        name, content = rng.choice(seeds)
        content = damage(content, rng)
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
    """Read a file; return "read", "refused" or "raised"."""
    try:
        results = [parsed.crystal for parsed in read_structures(name, content, ReadingConfig())]
    except Exception:
        traceback.print_exc()
        return "raised"
    if not results or any(isinstance(crystal, StructureError) and "\n" in str(crystal) for crystal in results):
        return "raised"
    return "read" if all(isinstance(crystal, Crystal) for crystal in results) else "refused"


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

if __name__ == "__main__":
    sys.exit(main())
