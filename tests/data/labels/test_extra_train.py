"""Extra training rows from a table of another origin, without compositions of validation and test rows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Composition, Element

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.dataset import LabeledCrystals, LabeledSplits, read_labels
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import TableError


@pytest.fixture(scope="module")
def phonondb(bundled: Path) -> Path:
    return bundled.with_name("phdos_phonondb.parquet")


@pytest.fixture(scope="module")
def joined(bundled: Path, phonondb: Path) -> LabeledSplits:
    return read_labels(bundled, DataConfig(table=str(bundled)), GraphConfig(), PHDOS_GRID, phonondb)


def composition(atomic_numbers) -> Composition:
    """Reduced composition, as pymatgen computes it from atomic numbers."""
    return Composition(dict(Counter(Element.from_Z(int(z)).symbol for z in atomic_numbers))).reduced_composition


def reduced(part: LabeledCrystals) -> list[Composition]:
    return [composition(crystal.atomic_numbers) for crystal in part.crystals]


def test_no_composition_of_a_validation_or_test_row_is_in_the_extra_rows(joined, bundled):
    own = pq.read_table(bundled, columns=["split"])["split"].to_pylist().count("train")
    extra = joined.train.take(np.arange(own, len(joined.train)))
    held_out = {*reduced(joined.valid), *reduced(joined.test)}
    assert len(extra) > 3000
    assert not held_out.intersection(reduced(extra))


def test_only_rows_of_these_compositions_are_left_out(joined, phonondb):
    table = pq.read_table(phonondb)
    extra = set(joined.train.material_ids[1192:])
    left_out = table.filter(pa.array([name not in extra for name in table["material_id"].to_pylist()]))
    held_out = {*reduced(joined.valid), *reduced(joined.test)}
    assert len(left_out) == len(table) - len(extra) == 228
    for numbers in left_out["atomic_numbers"].to_pylist():
        assert composition(numbers) in held_out


def test_polymorphs_are_left_out_under_any_id_and_formula(splits, small_table, tmp_path):
    """A renamed supercell of a test material: its id, formula string and number of sites are all different."""
    test = (
        small_table.filter(pa.array([part == "test" for part in small_table["split"].to_pylist()]))
        .slice(0, 1)
        .to_pylist()[0]
    )
    double = test | {
        "material_id": "other-1",
        "formula_pretty": "XY",
        "nsites": 2 * test["nsites"],
        "atomic_numbers": 2 * test["atomic_numbers"],
        "lattice": [2 * x for x in test["lattice"][:3]] + test["lattice"][3:],
        "frac_coords": [x for shift in (0, 0.5) for site in _sites(test) for x in (site[0] / 2 + shift, *site[1:])],
    }
    train = small_table.slice(0, 1).to_pylist()[0] | {"material_id": "other-2"}
    pq.write_table(small_table, tmp_path / "labels.parquet")
    pq.write_table(pa.Table.from_pylist([double, train], small_table.schema), tmp_path / "extra.parquet")
    read = read_labels(
        tmp_path / "labels.parquet", DataConfig(table=""), GraphConfig(), PHDOS_GRID, tmp_path / "extra.parquet"
    )
    assert read.train.material_ids == [*splits.train.material_ids, "other-2"]
    assert read.valid.material_ids == splits.valid.material_ids
    assert read.test.material_ids == splits.test.material_ids
    assert read.fingerprint != splits.fingerprint


def _sites(row: dict) -> list[list[float]]:
    return [row["frac_coords"][i : i + 3] for i in range(0, len(row["frac_coords"]), 3)]


def test_extra_table_without_labels_is_refused(splits, small_table, tmp_path):
    pq.write_table(small_table, tmp_path / "labels.parquet")
    pq.write_table(small_table.drop(["phdos"]), tmp_path / "extra.parquet")
    with pytest.raises(TableError, match=r"extra\.parquet: missing column phdos"):
        read_labels(
            tmp_path / "labels.parquet", DataConfig(table=""), GraphConfig(), PHDOS_GRID, tmp_path / "extra.parquet"
        )
