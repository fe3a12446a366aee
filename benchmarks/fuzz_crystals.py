"""Random crystals in any space group and setting, and how a crystal that was read differs from the true one."""

import random
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import product

import gemmi
import numpy as np
from ase.data import atomic_numbers, covalent_radii
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

ELEMENTS = (
    "H",
    "Li",
    "B",
    "C",
    "N",
    "O",
    "F",
    "Na",
    "Mg",
    "Si",
    "S",
    "Cl",
    "K",
    "Ti",
    "Fe",
    "Zn",
    "Sr",
    "I",
    "La",
    "Pb",
)

MOST_SITES = 64
"""Sites of the largest cell: larger ones show nothing more, and other readers take seconds for them."""

CLOSEST = 0.8
"""Of the sum of covalent radii, which are at least 0.45 Å here, the smallest distance in a true crystal."""

MATCH = 0.1
"""[Å] Largest distance of a site from its true position: coordinates have three digits or more."""

SPECIAL = (0.0, 0.5, 0.25, 0.75, 1 / 3, 2 / 3, 0.125)


@dataclass(frozen=True)
class TrueCrystal:
    """A crystal with its symmetry.

    Args:
        group: Space group, in one of its settings.
        lattice: Rows are the vectors a, b, c [Å].
        unit: Symbol and fractional coordinates of each site of the asymmetric unit.
        structure: All sites of the cell, those of each row of `unit` together.
    """

    group: gemmi.SpaceGroup
    lattice: Lattice
    unit: tuple[tuple[str, tuple[float, ...]], ...]
    structure: Structure

    @property
    def counts(self) -> dict[str, int]:
        """Atoms in the cell by element."""
        return dict(Counter(site.specie.symbol for site in self.structure))


def random_crystal(rng: random.Random) -> TrueCrystal:
    """Draw a space group, a cell that it allows, and one to four sites on general or special positions."""
    while True:
        system = rng.choice(sorted(settings_by_system()))
        if crystal := crystal_of(rng.choice(settings_by_system()[system]), rng):
            return crystal


@cache
def settings_by_system() -> dict[str, list[gemmi.SpaceGroup]]:
    """All 530 settings of the space groups."""
    settings = list(gemmi.spacegroup_table_itb())
    systems = {group.crystal_system_str() for group in settings}
    return {system: [group for group in settings if group.crystal_system_str() == system] for system in systems}


def crystal_of(group: gemmi.SpaceGroup, rng: random.Random) -> TrueCrystal | None:
    """Draw a crystal of a space group; None if its atoms are too many or too close in any reasonable cell."""
    rotations, translations = operations(tuple(operation.triplet() for operation in group.operations()))
    unit = []
    for symbol in rng.sample(ELEMENTS, rng.randint(1, 4)):
        site = _on_its_symmetry(_position(rng), rotations, translations)
        unit.append((symbol, tuple(round(x, 6) % 1.0 for x in site.tolist())))
    lattice = _lattice(rotations, rng)
    structure = expanded(lattice, unit, rotations, translations)
    if len(structure) > MOST_SITES:
        return None
    wide = _wide_enough(lattice, structure, rng)
    if wide is None:
        return None
    return TrueCrystal(group, wide, tuple(unit), Structure(wide, structure.species, structure.frac_coords))


def expanded(
    lattice: Lattice, unit: list[tuple[str, tuple[float, ...]]], rotations: np.ndarray, translations: np.ndarray
) -> Structure:
    """Apply all operations to all sites; images of one site within 1e-3 are one."""
    symbols, coords = [], []
    for symbol, position in unit:
        images = np.mod(rotations @ np.array(position) + translations, 1.0)
        distinct: list[np.ndarray] = []
        for image in images:
            offsets = np.array(distinct).reshape(-1, 3) - image
            if not (np.abs(offsets - np.rint(offsets)) < 1e-3).all(axis=1).any():
                distinct.append(image)
        symbols += [symbol] * len(distinct)
        coords += distinct
    return Structure(lattice, symbols, coords)


def operations(triplets: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations of operations in CIF notation."""
    parsed = [gemmi.Op(triplet) for triplet in triplets]
    return np.array([op.rot for op in parsed]) / gemmi.Op.DEN, np.array([op.tran for op in parsed]) / gemmi.Op.DEN


def closest(structure: Structure) -> float:
    """Smallest distance of two sites, images included, as a fraction of the sum of their covalent radii."""
    radii = np.array([max(0.45, covalent_radii[atomic_numbers[site.specie.symbol]]) for site in structure])
    offsets = structure.frac_coords[:, None] - structure.frac_coords[None]
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    vectors = (offsets - np.rint(offsets))[:, :, None] + images
    distances = np.linalg.norm(vectors @ structure.lattice.matrix, axis=-1)
    distances[np.eye(len(structure), dtype=bool)[:, :, None] & (images == 0).all(axis=1)] = np.inf
    return float((distances.min(axis=2) / np.add.outer(radii, radii)).min())


def same_crystal(found: Structure, true: Structure) -> bool:
    """Whether both are the same crystal: site by site in the same cell, else by pymatgen's StructureMatcher."""
    if not found.is_ordered or not np.isfinite(found.frac_coords).all():
        return False
    ratios = {element: found.composition[element] / n for element, n in true.composition.items()}
    if len(found.composition) != len(ratios) or len({round(ratio, 6) for ratio in ratios.values()}) != 1:
        return False
    if abs(found.volume / len(found) / (true.volume / len(true)) - 1) > 0.02:
        return False
    if len(found) == len(true) and np.allclose(found.lattice.parameters, true.lattice.parameters, rtol=2e-3):
        offsets = found.frac_coords[:, None] - true.frac_coords[None]
        distances = np.linalg.norm((offsets - np.rint(offsets)) @ true.lattice.matrix, axis=-1)
        numbers = np.array(found.atomic_numbers)[:, None] == np.array(true.atomic_numbers)[None]
        near = (distances < MATCH) & numbers
        if near.any(axis=0).all() and near.any(axis=1).all():
            return True
    matcher = StructureMatcher(ltol=0.02, stol=0.05, angle_tol=1, scale=False)
    return bool(matcher.fit(found.remove_oxidation_states() if found.is_ordered else found, true))


def _position(rng: random.Random) -> np.ndarray:
    x, y, z = (rng.choice((rng.choice(SPECIAL), rng.uniform(0.05, 0.95))) for _ in range(3))
    return np.array(rng.choice(((x, y, z), (x, x, x), (x, x, z), (x, -x, z), (x, 2 * x, z), (0, y, -y))))


def _on_its_symmetry(position: np.ndarray, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """Move a position that is almost on a symmetry element onto it."""
    images = rotations @ position + translations
    offsets = images - position
    offsets -= np.rint(offsets)
    near = (np.abs(offsets) < 0.04).all(axis=1)
    return position + offsets[near].mean(axis=0)


def _lattice(rotations: np.ndarray, rng: random.Random) -> Lattice:
    """A random cell, averaged over the rotations of the group so that each keeps its lengths and angles."""
    start = Lattice.from_parameters(*(rng.uniform(3, 9) for _ in range(3)), *(rng.uniform(75, 110) for _ in range(3)))
    metric = np.mean(rotations.transpose(0, 2, 1) @ start.metric_tensor @ rotations, axis=0)
    lengths = np.sqrt(np.diag(metric))
    cosines = metric / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))
    return Lattice.from_parameters(*(float(x) for x in lengths.round(4)), *(float(x) for x in angles.round(6)))


def _wide_enough(lattice: Lattice, structure: Structure, rng: random.Random) -> Lattice | None:
    volume = len(structure) * rng.uniform(10, 25)
    scale = (volume / lattice.volume) ** (1 / 3)
    ratio = closest(Structure(lattice.scale(volume), structure.species, structure.frac_coords))
    scale *= max(1.0, CLOSEST / max(ratio, 1e-9))
    if scale**3 * lattice.volume / len(structure) > 150:
        return None
    a, b, c = (round(length * scale, 4) for length in lattice.abc)
    return Lattice.from_parameters(a, b, c, *lattice.angles)
