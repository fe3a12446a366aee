"""Unrelaxed crystals: cells strained and atoms displaced at random by a given size."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mat2spec.structure.crystal import Crystal


def perturb(crystals: Sequence[Crystal], strain: float, displacement: float, seed: int = 0) -> list[Crystal]:
    """Strain each cell and displace each atom (the question of Fig. S7 of Kong et al., 10.1038/s41467-022-28543-x).

    Args:
        crystals: Relaxed crystals.
        strain: Standard deviation of each of the six components of the symmetric strain.
        displacement: Standard deviation of each Cartesian component of an atom's displacement [Å].
        seed: Seed of the random numbers; the same crystals and sizes give the same result.
    """
    generator = np.random.default_rng(seed)
    perturbed = []
    for crystal in crystals:
        gradient = generator.normal(0, strain, (3, 3))
        symmetric = np.triu(gradient) + np.triu(gradient, 1).T
        lattice = crystal.lattice @ (np.eye(3) + symmetric)
        shifts = generator.normal(0, displacement, (len(crystal), 3)) @ np.linalg.inv(lattice)
        perturbed.append(replace(crystal, lattice=lattice, frac_coords=crystal.frac_coords + shifts))
    return perturbed
