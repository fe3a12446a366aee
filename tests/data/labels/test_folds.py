"""Five folds by chemical system: no polymorph or related compound of a test row is in training."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Composition

from mat2spec.data.labels.folds import FOLDS, chemical_system, folds, split_of_folds
from mat2spec.data.materials.schema import read_crystals
from mat2spec.structure.crystal import Crystal

NAMES = ("train", "valid", "test")

ROWS = 4000
"""Structures to use, of 78,974."""

FOUR_SIGMA = 4.0
"""Standard deviations by which the size of a fold may miss a fifth of the chemical systems."""


@pytest.fixture(scope="module", params=["edos_gpaw", "mp_structures"])
def table(bundled: Path, request: pytest.FixtureRequest) -> pa.Table:
    """The electronic spectra, or some thousand structures of the Materials Project."""
    file = pq.ParquetFile(bundled.with_name(f"{request.param}.parquet"))
    columns = ["material_id", "formula_pretty", "nsites", "atomic_numbers", "lattice", "frac_coords"]
    return pa.Table.from_batches([next(file.iter_batches(batch_size=ROWS, columns=columns))])


@pytest.fixture(scope="module")
def rows(table: pa.Table) -> list[Crystal]:
    crystals = [row for row in read_crystals(table) if isinstance(row, Crystal)]
    assert len(crystals) == len(table)
    return crystals


def crystal_of(material_id: str, atomic_numbers: list[int]) -> Crystal:
    """Atoms on a line; folds do not depend on coordinates."""
    coords = np.arange(len(atomic_numbers))[:, None] * np.array([[1.0, 0, 0]]) / len(atomic_numbers)
    return Crystal(material_id, np.array(atomic_numbers, np.uint8), np.diag([3.0 * len(atomic_numbers), 3, 3]), coords)


def test_chemical_system_is_that_of_pymatgen(table, rows):
    expected = [Composition(formula).chemical_system for formula in table["formula_pretty"].to_pylist()]
    assert [chemical_system(crystal) for crystal in rows] == expected


def test_polymorphs_and_compounds_of_one_system_are_in_one_fold(table, rows):
    """Chemical systems and formulas as pymatgen reads them from the table."""
    folds_of, formulas_of = defaultdict(set), defaultdict(list)
    for fold, formula in zip(folds(rows).tolist(), table["formula_pretty"].to_pylist(), strict=True):
        system = Composition(formula).chemical_system
        folds_of[system].add(fold)
        formulas_of[system].append(formula)
    assert {len(numbers) for numbers in folds_of.values()} == {1}
    assert any(len(formulas) > len(set(formulas)) for formulas in formulas_of.values()), "the table has polymorphs"
    assert any(len(set(formulas)) > 1 for formulas in formulas_of.values()), (
        "the table has several compounds of a system"
    )


def test_fold_depends_neither_on_order_nor_on_other_rows(rows):
    expected = folds(rows)
    order = np.random.default_rng(0).permutation(len(rows))[: len(rows) // 3]
    np.testing.assert_array_equal(folds([rows[i] for i in order]), expected[order])
    np.testing.assert_array_equal(folds(rows[:1]), expected[:1])


def test_fold_is_the_same_in_every_table_and_every_process():
    """Python's own hash of a string changes from process to process."""
    crystals = [
        crystal_of("a", [26, 8]),
        crystal_of("b", [8, 8, 8, 26, 26]),
        crystal_of("c", [14]),
        crystal_of("d", [17, 11]),
    ]
    assert [chemical_system(crystal) for crystal in crystals] == ["Fe-O", "Fe-O", "Si", "Cl-Na"]
    assert folds(crystals).tolist() == [2, 2, 5, 1]


def test_bundled_electronic_spectra_always_had_these_folds(bundled):
    table = pq.read_table(bundled.with_name("edos_gpaw.parquet"))
    crystals = [row for row in read_crystals(table) if isinstance(row, Crystal)]
    assert np.bincount(folds(crystals), minlength=FOLDS + 1).tolist() == [0, 115, 128, 156, 113, 104]


def test_folds_have_about_equal_size(rows):
    systems = {chemical_system(crystal): crystal for crystal in rows}
    counts = Counter(folds(list(systems.values())).tolist())
    assert set(counts) == {1, 2, 3, 4, 5}
    chance = (len(systems) * (1 / FOLDS) * (1 - 1 / FOLDS)) ** 0.5
    assert max(abs(count - len(systems) / FOLDS) for count in counts.values()) < FOUR_SIGMA * chance


def test_each_material_is_tested_once_validates_once_and_trains_three_times(rows):
    parts = np.array([split_of_folds(rows, fold, NAMES) for fold in range(1, FOLDS + 1)])
    for name, times in (("test", 1), ("valid", 1), ("train", 3)):
        np.testing.assert_array_equal((parts == name).sum(axis=0), times, err_msg=name)


@pytest.mark.parametrize("fold", range(1, FOLDS + 1))
def test_the_next_fold_is_for_validation(rows, fold):
    following = fold + 1 if fold < FOLDS else 1
    split = split_of_folds(rows, fold, NAMES)
    next_split = split_of_folds(rows, following, NAMES)
    np.testing.assert_array_equal(split == "test", folds(rows) == fold)
    np.testing.assert_array_equal(split == "valid", next_split == "test")


def test_parts_have_the_given_names(rows):
    assert set(split_of_folds(rows, 2, ("fit", "select", "score")).tolist()) == {"fit", "select", "score"}
