"""CIFs read by us beside pymatgen's reader alone: structures per second of each, and every structure on which they differ.

    python benchmarks/cif.py [ARCHIVE.tar.zst]

Each file is read by both in turn, so that both meet the same load on the machine. One core.
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
"""[Å] of the lattice vectors; and of fractional coordinates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, default=HOME / "tests/data/cifs.tar.zst")
    arguments = parser.parse_args()
    files = dict(texts(arguments.archive))
    ours, theirs, detours, differences = 0.0, 0.0, [], []
    warnings.simplefilter("ignore", UserWarning)  # pymatgen's remarks
    for name, text in files.items():
        with patch.object(cif, "_by_pymatgen", wraps=cif._by_pymatgen) as detour:
            start = time.perf_counter()
            [parsed] = cif.read_cif(text, name)
            ours += time.perf_counter() - start
        start = time.perf_counter()
        expected = by_pymatgen(text)
        theirs += time.perf_counter() - start
        if detour.called:
            detours.append(name)
        if difference := difference_from(expected, parsed.crystal):
            differences.append(f"{name}: {difference}")
    print(f"{len(files)} CIFs of {arguments.archive.name}, one core; {environment()['hardware']}")
    for reader, seconds in (("mat2spec", ours), ("pymatgen", theirs)):
        print(f"  {reader:<10}{len(files) / seconds:>8.0f} files/s{1e3 * seconds / len(files):>9.2f} ms a file")
    print(
        f"  {theirs / ours:.1f} times as fast; {len(files) - len(detours)} without pymatgen's reader, {len(detours)} with it"
    )
    print(f"  {len(differences)} differ (species, lattice, sites as sets; {TOLERANCE:g})")
    for line in [*differences, *(f"{name}: by pymatgen" for name in detours)]:
        print(f"    {line}")


def texts(archive: Path) -> Iterator[tuple[str, str]]:
    """Name without ending, and text, of each CIF in an archive."""
    with pa.CompressedInputStream(str(archive), "zstd") as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None:
                yield Path(member.name).stem, content.read().decode()


def by_pymatgen(text: str) -> Structure | Exception:
    """Read a CIF of one structure by pymatgen alone; or what stops it."""
    try:
        [structure] = CifParser.from_str(text).parse_structures(primitive=False)
    except Exception as error:
        return error
    return structure


def difference_from(expected: Structure | Exception, found: Crystal | StructureError) -> str:
    """What differs between a structure of pymatgen's and ours; "" if nothing does."""
    if isinstance(expected, Exception):
        return f"read by us; pymatgen stops with {type(expected).__name__} ({expected})"
    if isinstance(found, StructureError):
        return str(found)
    if len(expected) != len(found):
        return f"{len(found)} sites, pymatgen has {len(expected)}"
    if not np.allclose(expected.lattice.matrix, found.lattice, rtol=0, atol=TOLERANCE):
        return "the lattices differ"
    offsets = found.frac_coords[:, None] - np.array(expected.frac_coords)
    near = (np.abs(offsets - np.rint(offsets)) < TOLERANCE).all(axis=2)
    same = near & np.equal.outer(found.atomic_numbers, np.array(expected.atomic_numbers))
    if (same.sum(axis=0) != 1).any() or (same.sum(axis=1) != 1).any():
        return f"{int((same.sum(axis=1) != 1).sum())} sites have no counterpart"
    return ""


if __name__ == "__main__":
    main()
