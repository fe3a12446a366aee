"""Subsets of a table of labels on which a network is specialized."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Composition, Element
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.data.labels.subsets import SUBSETS
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import TableError
from mat2spec.structure.crystal import Crystal

PARTS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def table(bundled) -> pa.Table:
    """Rows of every split, about a third of them in each subset."""
    whole = pq.read_table(bundled)
    split = np.array(whole["split"].to_pylist())
    return whole.take(
        np.concatenate([np.flatnonzero(split == name)[:rows] for name, rows in zip(PARTS, (60, 40, 40), strict=True)])
    )


@pytest.fixture(scope="module")
def read(table, tmp_path_factory):
    """Read the table with other settings."""
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    pq.write_table(table, path)
    return lambda **settings: read_labels(path, DataConfig(table=str(path), **settings), GraphConfig(), PHDOS_GRID)


@pytest.fixture(scope="module")
def whole(read) -> LabeledSplits:
    return read()


def by_pymatgen(subset: str, crystal: Crystal) -> bool:
    """Whether a crystal is in a subset, according to pymatgen."""
    if subset == "space-group-225":
        return SpacegroupAnalyzer(crystal.to_structure(), symprec=0.01).get_space_group_number() == 225
    elements = Composition(crystal.formula).elements
    rare_earths = {e for e in elements if e.is_rare_earth}
    return len(elements) == 3 and Element("O") in elements and not rare_earths


@pytest.mark.parametrize("subset", SUBSETS)
def test_each_split_holds_exactly_the_crystals_of_the_subset(read, whole, subset):
    restricted = read(subset=subset)
    for name in PARTS:
        expected = [c.material_id for c in getattr(whole, name).crystals if by_pymatgen(subset, c)]
        assert getattr(restricted, name).material_ids == expected, name
        assert 0 < len(expected) < len(getattr(whole, name)), "some rows are in the subset and some are not"


def test_magnesium_oxide_is_in_space_group_225_and_not_a_ternary_oxide(real_crystals):
    oxide = next(c for c in real_crystals if c.material_id == "mp-1265")
    assert [SUBSETS[name](oxide) for name in ("space-group-225", "ternary-oxides")] == [True, False]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ("Sr Ti O", True),
        ("Sr O", False),
        ("Sr Ti S", False),
        ("K Sr Ti O", False),
        ("Y Al O", False),
        ("La Al O", False),
        ("Th Ti O", True),
    ],
)
def test_ternary_oxides_are_oxygen_and_two_others_without_rare_earths(silicon, elements, expected):
    numbers = np.array([Element(symbol).Z for symbol in elements.split()], np.uint8)
    coords = np.linspace(0, 1, len(numbers), endpoint=False)[:, None] * np.ones(3)
    assert SUBSETS["ternary-oxides"](Crystal("oxide", numbers, 6 * np.eye(3), coords)) == expected


def test_subset_that_a_split_lacks_is_refused(small_table, tmp_path):
    path = tmp_path / "labels.parquet"
    pq.write_table(small_table.slice(0, 1), path)  # barium telluride
    with pytest.raises(TableError, match="no row of ternary-oxides with split 'train'"):
        read_labels(path, DataConfig(table=str(path), subset="ternary-oxides"), GraphConfig(), PHDOS_GRID)


def test_smaller_fraction_is_part_of_the_larger_and_takes_from_training_rows_only(read, whole):
    parts = [read(fraction=fraction) for fraction in (1 / 8, 1 / 4, 1 / 2, 1.0)]
    assert [len(part.train) for part in parts] == [8, 15, 30, 60]
    ids = [set(part.train.material_ids) for part in parts]
    assert ids[0] < ids[1] < ids[2] < ids[3]
    for part in parts:
        assert part.valid.material_ids == whole.valid.material_ids
        assert part.test.material_ids == whole.test.material_ids
        assert part.fingerprint == whole.fingerprint, "the fingerprint is of the whole table"


def test_rows_of_a_fraction_keep_their_graph_and_spectrum_and_are_not_the_first_ones(read, whole):
    half = read(fraction=0.5).train
    rows = [whole.train.material_ids.index(material_id) for material_id in half.material_ids]
    assert rows == sorted(rows)
    assert rows != list(range(30))
    assert half.spectra.equal(whole.train.spectra[rows])
    for graph, row in zip(half.graphs, rows, strict=True):
        np.testing.assert_array_equal(graph.distances, whole.train.graphs[row].distances)


def test_smallest_fraction_leaves_one_row(read):
    assert len(read(fraction=1e-6).train) == 1


def test_fraction_of_a_subset_counts_its_rows(read):
    everything = read(subset="space-group-225").train
    half = read(subset="space-group-225", fraction=0.5).train
    assert len(half) == round(len(everything) / 2)
    assert set(half.material_ids) < set(everything.material_ids)


def test_extra_rows_are_training_rows_unless_a_held_out_row_has_their_composition(table, whole, tmp_path):
    """Also with other ids, and for polymorphs: a table of another origin has other ids for the same material."""
    first = tmp_path / "labels.parquet"
    second = tmp_path / "extra.parquet"
    pq.write_table(table, first)
    renamed = table.set_column(
        table.schema.get_field_index("material_id"), "material_id", pa.array([f"other-{i}" for i in range(140)])
    )
    pq.write_table(renamed.drop_columns("split"), second)
    more = read_labels(first, DataConfig(table=str(first)), GraphConfig(), PHDOS_GRID, second)
    held_out = {c.formula for c in whole.valid.crystals + whole.test.crystals}
    expected = [
        f"other-{row}"
        for row, formula in enumerate(c.formula for c in whole.everything.crystals)
        if formula not in held_out
    ]
    assert more.train.material_ids == whole.train.material_ids + expected
    assert 0 < len(expected) <= 60
    assert len(more.train.graphs) == len(more.train.spectra) == 60 + len(expected)
    assert (more.valid.material_ids, more.test.material_ids) == (whole.valid.material_ids, whole.test.material_ids)
    assert more.fingerprint != whole.fingerprint
