"""Five folds of a table by chemical system, so that no polymorph or related compound of a test row is in training."""

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
    """Fold of each crystal, 1 … 5, from a hash of its chemical system: the same in every table, however it grows."""
    digests = [hashlib.sha256(chemical_system(crystal).encode()).digest() for crystal in crystals]
    return np.array([int.from_bytes(digest[:8]) % FOLDS + 1 for digest in digests], int)


def split_of_folds(crystals: Sequence[Crystal], test: int, names: tuple[str, str, str]) -> np.ndarray:
    """Part of each crystal: one fold is for testing, the next one for validation, the other three for training."""
    train_name, valid_name, test_name = names
    fold = folds(crystals)
    return np.where(fold == test, test_name, np.where(fold == test % FOLDS + 1, valid_name, train_name))
