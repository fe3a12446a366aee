"""Element features of the networks: 92 one-hot features of nine properties.

The properties are those of CGCNN (Xie and Grossman, 10.1103/PhysRevLett.120.145301): group, period, electronegativity,
covalent radius, valence electrons, first ionization energy, electron affinity, block and molar volume. Their values, in
elements.csv, are those of pymatgen 2026.10 (a test compares them); covalent radii are Cordero's (10.1039/b801115j). An
unknown value sets no feature.
"""

import csv
import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int

MAX_ATOMIC_NUMBER = 100
"""Heaviest element with a feature row (fermium)."""

COMPOSITION_SIZE = 103
"""Length of the vector of atomic fractions, H … Lr, as in the paper's code."""

_TABLE = Path(__file__).with_name("elements.csv")


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with _TABLE.open() as lines:
        return tuple(csv.DictReader(lines))


@cache
def table_fingerprint() -> str:
    """SHA-256 of the features; checkpoints trained with other features are refused."""
    return hashlib.sha256(feature_table().tobytes()).hexdigest()


@cache
def symbols() -> tuple[str, ...]:
    """Symbols by atomic number; index 0 is an empty string."""
    return ("", *(row["symbol"] for row in _rows()))


def _valence_electrons(row: dict[str, str]) -> int:
    """Electrons outside the noble-gas core, without a filled d or f shell; at most 12, as in CGCNN."""
    group = int(row["group"])
    atomic_number = int(row["atomic_number"])
    if row["symbol"] == "He":
        return 2
    if row["block"] == "f":
        core = 54 if atomic_number < 87 else 86
        return min(atomic_number - core, 12)
    return group - 10 if row["block"] == "p" else group


def _one_hot(categories: list[int | None], size: int) -> np.ndarray:
    """One-hot encoding: one row per element, one column per category; None sets no column."""
    columns = np.array([-1 if c is None else c for c in categories])
    return np.equal.outer(columns, np.arange(size))


def _binned(name: str, bins: int, *, logarithmic: bool = False) -> np.ndarray:
    """One-hot encoding in equal-width bins between the smallest and the largest known value."""
    values = np.array([float(row[name] or "nan") for row in _rows()])
    values = np.log(values) if logarithmic else values
    low = np.nanmin(values)
    high = np.nanmax(values)
    index = np.minimum((values - low) / (high - low) * bins, bins - 1)
    return _one_hot([None if np.isnan(i) else int(i) for i in index], bins)


def _undefined(name: str) -> np.ndarray:
    """One column that is set where the property is unknown."""
    return np.array([[not row[name]] for row in _rows()])


@cache
def feature_table() -> Float32[np.ndarray, "elements features"]:
    """Features by atomic number; row 0 belongs to no element and is zero."""
    rows = _rows()
    blocks = [
        _one_hot([int(row["group"]) - 1 for row in rows], 18),
        _one_hot([int(row["row"]) - 1 for row in rows], 7),
        _binned("electronegativity", 10),
        _undefined("electronegativity"),
        _binned("covalent_radius", 10),
        _one_hot([_valence_electrons(row) - 1 for row in rows], 12),
        _binned("ionization_energy", 10, logarithmic=True),
        _binned("electron_affinity", 10),
        _one_hot(["spdf".index(row["block"]) for row in rows], 4),
        _binned("molar_volume", 10, logarithmic=True),
    ]
    features = np.concatenate(blocks, axis=1).astype(np.float32)
    return np.concatenate([np.zeros((1, features.shape[1]), np.float32), features])


@cache
def atomic_masses() -> Float32[np.ndarray, " elements"]:
    """Standard atomic mass [u] by atomic number; index 0 belongs to no element and is 1."""
    masses = [float(row["atomic_mass"]) for row in _rows()[:MAX_ATOMIC_NUMBER]]
    return np.array([1.0, *masses], np.float32)


@cache
def outer_electrons() -> Int[np.ndarray, " elements"]:
    """Electrons of an atom whose bands are near the Fermi level in any crystal, by atomic number; index 0 is 0.

    The s² of the p block and the d¹⁰ of group 12 may be deep and do not count; an f element counts as 3.
    """
    return np.array([0, *(_outer_electrons(row) for row in _rows())])


def _outer_electrons(row: dict[str, str]) -> int:
    group = int(row["group"])
    if row["symbol"] == "He":
        return 0
    if row["block"] == "f":
        return 3
    if row["block"] == "p":
        return group - 12
    return 2 if group == 12 else group


@cache
def covalent_radii() -> Float64[np.ndarray, " elements"]:
    """Covalent radius [Å] by atomic number; index 0 belongs to no element and is 0.

    Cordero's table ends with curium, whose radius is taken for the four elements after it.
    """
    known = [float(row["covalent_radius"] or "nan") for row in _rows()[:MAX_ATOMIC_NUMBER]]
    radii = np.array([0.0, *known])
    return np.where(np.isnan(radii), radii[96], radii)
