"""CIF reader compared with pymatgen's: files per second of each, and every structure on which they differ.

    python benchmarks/cif.py [ARCHIVE.tar.zst]

Each file is read by both in turn, so that both see the same load of the machine. One core.
"""

import argparse
import tarfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser

from mat2spec.errors import StructureError
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.readers import cif

HOME = Path(__file__).parents[1]
TOLERANCE = 1e-4
"""For lattice vectors [Å] and for fractional coordinates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, default=HOME / "tests/data/cifs.tar.zst")
    arguments = parser.parse_args()
    files = dict(texts(arguments.archive))
    ours = theirs = 0.0
    fallbacks: list[str] = []
    differences: list[str] = []
    warnings.simplefilter("ignore", UserWarning)  # pymatgen's
    for name, text in files.items():
        with patch.object(cif, "_by_pymatgen", wraps=cif._by_pymatgen) as fallback:
            start = time.perf_counter()
            [parsed] = cif.read_cif(text, name)
            ours += time.perf_counter() - start
        start = time.perf_counter()
        expected = by_pymatgen(text)
        theirs += time.perf_counter() - start
        if fallback.called:
            fallbacks.append(name)
        if difference := difference_from(expected, parsed.crystal):
            differences.append(f"{name}: {difference}")
    print(f"{len(files)} CIFs of {arguments.archive.name}, one core; {environment()['hardware']}")
    for reader, seconds in (("mat2spec", ours), ("pymatgen", theirs)):
        print(f"  {reader:<10}{len(files) / seconds:>8.0f} files/s{1e3 * seconds / len(files):>9.2f} ms/file")
    print(f"  {theirs / ours:.1f} times as fast; {len(fallbacks)} of {len(files)} files needed pymatgen's reader")
    print(f"  {len(differences)} differ (species, lattice, sites as sets; tolerance {TOLERANCE:g})")
    for line in [*differences, *(f"{name}: read by pymatgen" for name in fallbacks)]:
        print(f"    {line}")


def texts(archive: Path) -> Iterator[tuple[str, str]]:
    """Name without suffix, and text, of each CIF in an archive."""
    with pa.CompressedInputStream(str(archive), "zstd") as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None:
                yield Path(member.name).stem, content.read().decode()


def by_pymatgen(text: str) -> Structure | Exception:
    """Read a CIF of one structure by pymatgen alone; return the structure or the error."""
    try:
        [structure] = CifParser.from_str(text).parse_structures(primitive=False)
    except Exception as error:
        return error
    return structure


def difference_from(expected: Structure | Exception, ours: Crystal | StructureError) -> str:
    """Describe the first difference between pymatgen's structure and ours; "" if there is none."""
    if isinstance(expected, Exception):
        return f"read by us; pymatgen raises {type(expected).__name__} ({expected})"
    if isinstance(ours, StructureError):
        return str(ours)
    if len(expected) != len(ours):
        return f"{len(ours)} sites, pymatgen has {len(expected)}"
    if not np.allclose(expected.lattice.matrix, ours.lattice, rtol=0, atol=TOLERANCE):
        return "the lattices differ"
    offsets = ours.frac_coords[:, None] - np.array(expected.frac_coords)
    near = (np.abs(offsets - np.rint(offsets)) < TOLERANCE).all(axis=2)
    same = near & np.equal.outer(ours.atomic_numbers, np.array(expected.atomic_numbers))
    if (same.sum(axis=0) != 1).any() or (same.sum(axis=1) != 1).any():
        return f"{int((same.sum(axis=1) != 1).sum())} sites have no counterpart"
    return ""


if __name__ == "__main__":
    main()
