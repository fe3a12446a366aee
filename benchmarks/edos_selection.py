"""Which bundled structures to compute next, so that stopping anywhere leaves a set stratified over crystal systems and elements.

    python benchmarks/edos_selection.py SELECTION.parquet [--limit 1500]

Writes a materials table in the order of computation: standardised primitive cells of at most 8 sites, without what a non-magnetic
calculation cannot describe (Cr, Mn, Fe, Co, Ni, open 4f shells), without elements that have no setup, without those computed already.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import spglib

from mat2spec.elements import symbols

BUNDLED = Path(__file__).parents[1] / "mat2spec" / "data" / "bundled"
MAX_SITES = 8
EXCLUDED = {24, 25, 26, 27, 28, *range(58, 71), 43, 84, 85, 2, 10, 18, 36, 54, *range(86, 101)}
"""Magnetic 3d, open 4f shells, no setup, noble gases."""

SYSTEMS = {"triclinic": 2, "monoclinic": 15, "orthorhombic": 74, "tetragonal": 142, "trigonal": 167, "hexagonal": 194, "cubic": 230}
"""Last space group of each."""

MAX_COST = 40.0
"""Of `cost`, about seconds on one core."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    done = pq.read_table(BUNDLED / "edos_gpaw.parquet").to_pylist()
    found = candidates(done)
    chosen = in_order(found, done, arguments.limit, np.random.default_rng(arguments.seed))
    pq.write_table(pa.Table.from_pylist(chosen), arguments.output, compression="zstd")
    print(f"{len(chosen)} of {len(found)} candidates, {sum(row['cost'] for row in chosen):.0f} s of CPU expected")


def candidates(done: list[dict]) -> list[dict]:
    """Standardised cells that can be computed at the cost allowed; one of those with the same formula and space group."""
    names = symbols()
    seen = {(row["formula_pretty"], number_of(row)) for row in done}
    found = []
    table = pq.read_table(BUNDLED / "mp_structures.parquet").to_pylist()
    for row in table:
        if row["nsites"] > MAX_SITES or EXCLUDED & set(row["atomic_numbers"]):
            continue
        cell = spglib.standardize_cell(cell_of(row), to_primitive=True, no_idealize=False, symprec=1e-2)
        if cell is None:
            continue
        data = spglib.get_symmetry_dataset(cell, symprec=1e-2)
        key = (row["formula_pretty"], data.number)
        if key in seen or (price := cost(cell)) > MAX_COST:
            continue
        seen.add(key)
        lattice, frac_coords, numbers = cell
        found.append(
            {
                "material_id": row["material_id"],
                "formula_pretty": row["formula_pretty"],
                "nsites": len(numbers),
                "atomic_numbers": [int(z) for z in numbers],
                "lattice": np.ravel(lattice).tolist(),
                "frac_coords": np.ravel(frac_coords).tolist(),
                "mp_band_gap": row["band_gap"],
                "space_group": data.number,
                "crystal_system": system_of(data.number),
                "elements": sorted({names[int(z)] for z in numbers}),
                "cost": price,
            }
        )
    return found


def cell_of(row: dict) -> tuple:
    return np.reshape(row["lattice"], (3, 3)), np.reshape(row["frac_coords"], (-1, 3)), row["atomic_numbers"]


def number_of(row: dict) -> int:
    return spglib.get_symmetry_dataset(cell_of(row), symprec=1e-2).number


def system_of(number: int) -> str:
    return next(name for name, last in SYSTEMS.items() if number <= last)


def cost(cell: tuple) -> float:
    """Seconds, to a factor of about two: irreducible k-points × bands × plane waves, calibrated on five crystals."""
    lattice, _, numbers = cell
    volume = abs(np.linalg.det(lattice))
    lengths = np.linalg.norm(np.linalg.inv(lattice), axis=0)
    points = 0
    for kppra, passes in ((450, 10), (1400, 8)):
        mesh = [max(1, round(float(n))) for n in lengths * (kppra / len(numbers) / lengths.prod()) ** (1 / 3)]
        points += passes * len(np.unique(spglib.get_ir_reciprocal_mesh(mesh, cell, is_shift=[0, 0, 0], symprec=1e-2)[0]))
    bands = 4 * len(numbers) + 0.08 * volume
    cutoff = 450 if {7, 8, 9} & set(numbers.tolist()) else 350
    return float(2.5 + points * bands * volume * (cutoff / 350) ** 1.5 * COST_UNIT)


COST_UNIT = 2.8e-5


def in_order(found: list[dict], done: list[dict], limit: int, rng: np.random.Generator) -> list[dict]:
    """Take in turn from each crystal system and number of elements the crystal whose elements were taken least."""
    taken = Counter(z for row in done for z in set(row["atomic_numbers"]))
    strata: dict[tuple, list[dict]] = {}
    for row in found:
        strata.setdefault((row["crystal_system"], min(len(row["elements"]), 4)), []).append(row)
    drawn: Counter = Counter()
    chosen: list[dict] = []
    shares = {"cubic": 0.4, 1: 0.3}  # most of what is there is cubic, and elements have few crystals
    weights = {key: min(1.0, len(rows) / 40) * np.prod([shares.get(part, 1.0) for part in key]) for key, rows in strata.items()}
    while len(chosen) < limit and strata:
        key = min(strata, key=lambda k: ((drawn[k] + 1) / weights[k], k))
        rows = strata[key]
        some = rng.choice(len(rows), size=min(60, len(rows)), replace=False)
        best = min(some, key=lambda i: merit(rows[i], taken))
        row = rows.pop(int(best))
        if not rows:
            del strata[key]
        drawn[key] += 1
        taken.update(set(row["atomic_numbers"]))
        chosen.append(row)
    return chosen


def merit(row: dict, taken: Counter) -> float:
    """Low for rare elements, low cost and a known band gap: of the structures with a known gap fewer than half are insulators."""
    rarity = float(np.mean([np.sqrt(1 + taken[z]) for z in set(row["atomic_numbers"])]))
    gapped = 0.7 if (row["mp_band_gap"] or 0) > 0.1 else 1.0
    return rarity * row["cost"] ** 0.5 * gapped


if __name__ == "__main__":
    main()
