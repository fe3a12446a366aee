"""Select the bundled structures to compute next, so that any number of them is stratified by symmetry and elements.

    python benchmarks/edos_selection.py SELECTION.parquet [--limit 1500] [--max-cost 40]

Writes a materials table of standardized primitive cells of at most eight sites, without structures that a calculation
without spin cannot describe and those that are computed already. Screen the table, verify the screening, and make
labels of the result:

    python jobs/screen.py configs/screen-edos.yaml --input SELECTION.parquet --output runs/selection
    python jobs/verify.py runs/selection --where true --limit 500
    python jobs/ingest.py labels runs/selection --base mat2spec/data/bundled/edos_gpaw.parquet --output LABELS.parquet
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import spglib
from numpy.typing import NDArray
from pymatgen.symmetry.groups import SpaceGroup

from mat2spec.config import GpawConfig
from mat2spec.data.materials.schema import materials_table, read_crystals
from mat2spec.dft.gpaw_engine import NEEDS_SPIN, Gpaw, setups
from mat2spec.dft.gpaw_program import k_mesh
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.symmetry import SYMPREC, space_group_number, standard_primitive

BUNDLED = Path(__file__).parents[1] / "mat2spec/data/bundled"
MAX_SITES = 8
NOBLE_GASES = frozenset({2, 10, 18, 36, 54})

PASSES = {"kppra_scf": 10, "kppra_dos": 8}
"""Number of passes over the bands of each mesh."""

SHARES = {"cubic": 0.4, 1: 0.3}
"""Smaller shares of the largest strata: cubic crystals, and elements, which have few crystals each."""

COST_UNIT = 2.8e-5
"""[core-seconds per k-point, band and Å³] at 350 eV; from five crystals, correct within a factor of about two."""

SEED = 0


@dataclass(frozen=True)
class Candidate:
    """A crystal that could be computed.

    Args:
        crystal: Its standardized primitive cell.
        space_group: International number.
        cost: Estimated core-seconds.
    """

    crystal: Crystal
    space_group: int
    cost: float

    @classmethod
    def of(cls, crystal: Crystal) -> "Candidate":
        """Find symmetry and cost; most of the time is spglib's, so it is asked for each cell once."""
        crystal = standard_primitive(crystal)
        cell = (crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist())
        symmetry = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
        number, rotations = (
            (1, np.eye(3, dtype=np.intc)[None]) if symmetry is None else (symmetry.number, symmetry.rotations)
        )
        return cls(crystal, number, estimated_cost(crystal, rotations))

    @property
    def stratum(self) -> tuple[str, int]:
        """Crystal system, and number of elements (four stands for four or more)."""
        return crystal_system(self.space_group), min(len(self.crystal.elements), 4)


@cache
def crystal_system(space_group: int) -> str:
    return SpaceGroup.from_int_number(space_group).crystal_system


def estimated_cost(crystal: Crystal, rotations: NDArray[np.intc]) -> float:
    """Core-seconds: irreducible k-points of both meshes, weighted by passes, × bands × plane waves."""
    settings = Gpaw(GpawConfig()).settings(crystal)
    points = 0
    for density, passes in PASSES.items():
        mesh = k_mesh(crystal.lattice, len(crystal), settings[density], settings["even_mesh"])
        reduced = spglib.get_stabilized_reciprocal_mesh(mesh, rotations, is_shift=[0, 0, 0])
        points += passes * (len(np.unique(reduced[0])) if reduced else int(np.prod(mesh)))
    bands = 4 * len(crystal) + 0.08 * crystal.volume
    return float(2.5 + points * bands * crystal.volume * (settings["cutoff_ev"] / 350) ** 1.5 * COST_UNIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--max-cost", type=float, default=40.0, help="[core-seconds] largest estimated cost")
    arguments = parser.parse_args()
    done = [crystal for table in ("edos_gpaw.parquet", "edos_gpaw") for crystal in read(table)]
    available = list(candidates(done, arguments.max_cost))
    chosen = select(available, done, arguments.limit)
    pq.write_table(materials_table([candidate.crystal for candidate in chosen]), arguments.output, compression="zstd")
    core_hours = sum(candidate.cost for candidate in chosen) / 3600
    print(f"{len(chosen)} of {len(available)} candidates, about {core_hours:.1f} core-hours")


def read(name: str) -> Iterator[Crystal]:
    return (row for row in read_crystals(pq.read_table(BUNDLED / name)) if isinstance(row, Crystal))


def candidates(done: list[Crystal], max_cost: float) -> Iterator[Candidate]:
    """Crystals that can be computed at that cost; one of those with the same formula and space group."""
    seen = {(crystal.formula, space_group_number(crystal)) for crystal in done}
    usable = setups()
    computable = (
        crystal
        for crystal in read("mp_structures.parquet")
        if len(crystal) <= MAX_SITES
        and (NEEDS_SPIN | NOBLE_GASES).isdisjoint(crystal.atomic_numbers.tolist())
        and usable.issuperset(crystal.elements)
    )
    with ProcessPoolExecutor() as pool:
        for candidate in pool.map(Candidate.of, computable, chunksize=100):
            key = (candidate.crystal.formula, candidate.space_group)
            if key not in seen and candidate.cost <= max_cost:
                seen.add(key)
                yield candidate


def select(available: list[Candidate], done: list[Crystal], limit: int) -> list[Candidate]:
    """Take from each stratum in turn, out of 60 random crystals, the one with the rarest elements for its cost."""
    random = np.random.default_rng(SEED)
    strata: dict[tuple[str, int], list[Candidate]] = defaultdict(list)
    for candidate in available:
        strata[candidate.stratum].append(candidate)
    weights = {
        key: min(1.0, len(rows) / 40) * np.prod([SHARES.get(part, 1.0) for part in key]) for key, rows in strata.items()
    }
    taken = Counter(z for crystal in done for z in set(crystal.atomic_numbers.tolist()))
    drawn: Counter[tuple[str, int]] = Counter()
    chosen: list[Candidate] = []
    while len(chosen) < limit and strata:
        key = min(strata, key=lambda key: ((drawn[key] + 1) / weights[key], key))
        rows = strata[key]
        sample = random.choice(len(rows), size=min(60, len(rows)), replace=False)
        candidate = rows.pop(int(min(sample, key=lambda i: merit(rows[i], taken))))
        if not rows:
            del strata[key]
        drawn[key] += 1
        taken.update(set(candidate.crystal.atomic_numbers.tolist()))
        chosen.append(candidate)
    return chosen


def merit(candidate: Candidate, taken: Counter[int]) -> float:
    """Merit of a candidate: low for elements that were seldom taken, and for a low cost."""
    rarity = np.mean([np.sqrt(1 + taken[z]) for z in set(candidate.crystal.atomic_numbers.tolist())])
    return float(rarity * candidate.cost**0.5)


if __name__ == "__main__":
    main()
