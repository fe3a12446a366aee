"""Precision and recall of the structure fingerprint, against pymatgen's StructureMatcher on the bundled structures.

    python benchmarks/seen.py [--pairs 5319] [--rows 1000]

Pairs of one reduced composition: a crystal of phonondb (PBEsol) and one of the Materials Project (PBE), at most 20
sites each. Then the CPU time that the columns seen_in_training and empty_radius cost each row of a screening, and how
many of the bundled structures have large empty spheres.
"""

import argparse
import random
import time
from collections import defaultdict
from itertools import starmap

import numpy as np
import pyarrow.parquet as pq
from pymatgen.analysis.structure_matcher import StructureMatcher

from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.model.checkpoint import SHIPPED, Checkpoint
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.empty_space import empty_radius
from mat2spec.structure.fingerprint import same_structure, structure_fingerprint

BUNDLED = SHIPPED.with_name("data") / "bundled"
LARGEST = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5319, help="number of pairs to compare, in random order")
    parser.add_argument("--rows", type=int, default=1000, help="number of bundled structures to time")
    arguments = parser.parse_args()
    crystals = read("mp_structures.parquet")
    random.Random(0).shuffle(crystals)
    compare(pairs(read("phdos_phonondb.parquet"), crystals)[: arguments.pairs])
    cost(crystals[: arguments.rows])


def read(table: str) -> list[Crystal]:
    rows = read_crystals(pq.read_table(BUNDLED / table, columns=list(COLUMNS)))
    return [row for row in rows if isinstance(row, Crystal) and len(row) <= LARGEST]


def pairs(first: list[Crystal], second: list[Crystal]) -> list[tuple[Crystal, Crystal]]:
    """All pairs of one composition, in random order."""
    by_composition = defaultdict(list)
    for crystal in second:
        by_composition[crystal.composition].append(crystal)
    both = [(crystal, other) for crystal in first for other in by_composition[crystal.composition]]
    random.Random(0).shuffle(both)
    return both


def compare(both: list[tuple[Crystal, Crystal]]) -> None:
    matcher = StructureMatcher()
    same = np.array([matcher.fit(a.to_structure(), b.to_structure()) for a, b in both])
    ours = np.array(list(starmap(alike, both)))
    named = np.array([a.material_id == b.material_id for a, b in both])
    print(f"{len(both)} pairs, {same.sum()} the same by StructureMatcher; {named.sum()} of one id")
    for name, predicted in {"ids": named, "fingerprints": ours, "fingerprints or ids": ours | named}.items():
        hits = (predicted & same).sum()
        print(f"  {name:<20} precision {hits / predicted.sum():.3f}, recall {hits / same.sum():.3f}")


def alike(first: Crystal, second: Crystal) -> bool:
    others = structure_fingerprint(second).astype(np.float32)[None]
    return bool(same_structure(structure_fingerprint(first), others)[0])


def cost(crystals: list[Crystal]) -> None:
    for name in ("phdos", "edos", "band-gap"):
        checkpoint = Checkpoint.load(SHIPPED / name)
        checkpoint.has_seen(crystals[0])  # builds the index once for each process
        start = time.process_time()
        seen = [checkpoint.has_seen(crystal) for crystal in crystals]
        milliseconds = 1e3 * (time.process_time() - start) / len(crystals)
        ids = sum(crystal.material_id in checkpoint.training_ids for crystal in crystals)
        print(f"{name}: {milliseconds:.3f} ms/row; {sum(seen)} of {len(crystals)} seen, {ids} by id")
    start = time.process_time()
    radii = np.array([empty_radius(crystal) for crystal in crystals])
    print(f"empty_radius: {1e3 * (time.process_time() - start) / len(crystals):.3f} ms/row")
    for limit in (3.0, 3.5, 4.0, 5.0, 10.0):
        print(f"  {np.mean(radii >= limit):.2%} of {len(crystals)} have {limit:g} Å or more")


if __name__ == "__main__":
    main()
