"""Five parts of a table by chemical system, so that what is tested has no polymorph and no sister compound in training."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mat2spec.structure.crystal import Crystal

FOLDS = 5


def chemical_system(crystal: Crystal) -> str:
    """Elements in alphabetical order, as the Materials Project writes them: "Fe-O"."""
    return "-".join(crystal.elements)


def folds(crystals: Sequence[Crystal]) -> Int[np.ndarray, " crystals"]:
    """Give each crystal a fold, 1 … 5, by a hash of its chemical system: the same in every table, however the table grows."""
    digests = [hashlib.sha256(chemical_system(crystal).encode()).digest() for crystal in crystals]
    return np.array([int.from_bytes(digest[:8]) % FOLDS + 1 for digest in digests], int)


def split_of_folds(crystals: Sequence[Crystal], test: int, names: tuple[str, str, str]) -> np.ndarray:
    """Name the part of each crystal: one fold is the test, the next one validates, the other three train."""
    train_name, valid_name, test_name = names
    found = folds(crystals)
    return np.where(found == test, test_name, np.where(found == test % FOLDS + 1, valid_name, train_name))
