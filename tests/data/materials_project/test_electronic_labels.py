"""Electronic labels: one number per crystal, or a spectrum per primitive cell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from pymatgen.core import Composition

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.dataset import LabeledCrystals, LabeledSplits, read_labels
from mat2spec.data.labels.folds import folds, split_of_folds
from mat2spec.data.materials.schema import read_crystals
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import TableError
from mat2spec.evaluate.spectra import SpectrumEvaluation
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph

SINGLE = 1e-6
"""[relative] A division and a multiplication in float32."""

STRAIN, DISPLACEMENT = 0.02, 0.05

Read = Callable[..., LabeledSplits]


@pytest.fixture(scope="module")
def spectra(bundled: Path) -> pa.Table:
    """40 electronic spectra, without the columns of the calculation."""
    table = pq.read_table(bundled.with_name("edos_gpaw.parquet")).slice(0, 40)
    return table.select(["material_id", "formula_pretty", "nsites", "atomic_numbers", "lattice", "frac_coords", "edos"])


@pytest.fixture(scope="module")
def gaps(bundled: Path) -> pa.Table:
    """120 structures of at most 8 sites with a known band gap, and 80 without."""
    table = pa.Table.from_batches(
        [next(pq.ParquetFile(bundled.with_name("mp_structures.parquet")).iter_batches(batch_size=6000))]
    )
    small = table.filter(pc.field("nsites") <= 8)
    known, unknown = small.filter(pc.field("band_gap").is_valid()), small.filter(pc.field("band_gap").is_null())
    mixed = pa.concat_tables([unknown.slice(0, 40), known.slice(0, 120), unknown.slice(40, 40)])
    return mixed.select(
        ["material_id", "formula_pretty", "nsites", "atomic_numbers", "lattice", "frac_coords", "band_gap"]
    )


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a table and read it as labels."""

    def write_and_read(
        table: pa.Table, exclude_systems_of: pa.Table | None = None, label: str = "edos", **data: Any
    ) -> LabeledSplits:
        paths = [tmp_path / "labels.parquet", tmp_path / "excluded.parquet"]
        for path, content in zip(paths, (table, exclude_systems_of), strict=True):
            if content is not None:
                pq.write_table(content, path)
        config = DataConfig(table=str(paths[0]), label=label, **data)
        return read_labels(
            paths[0],
            config,
            GraphConfig(),
            EDOS_GRID,
            exclude_systems_of=paths[1] if exclude_systems_of is not None else None,
        )

    return write_and_read


def by_id(part: LabeledCrystals) -> dict[str, torch.Tensor]:
    return dict(zip(part.material_ids, part.spectra, strict=True))


def systems(table: pa.Table) -> dict[str, str]:
    """Chemical system of each material, from its formula by pymatgen."""
    return {row["material_id"]: Composition(row["formula_pretty"]).chemical_system for row in table.to_pylist()}


def same(one: CrystalGraph, two: CrystalGraph) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for name in ("atomic_numbers", "edge_index", "distances", "vectors")
    )


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def other_compound(row: dict[str, Any]) -> dict[str, Any]:
    """Another material of the same chemical system: elements are exchanged, AB₂ becomes A₂B."""
    elements = sorted(set(row["atomic_numbers"]))
    swapped = dict(zip(elements, reversed(elements), strict=True))
    return row | {
        "material_id": f"other-{row['material_id']}",
        "atomic_numbers": [swapped[z] for z in row["atomic_numbers"]],
    }


def doubled(row: dict[str, Any]) -> dict[str, Any]:
    """The same crystal in a cell of twice the length along a."""
    sites = np.array(row["frac_coords"]).reshape(-1, 3)
    lattice = np.array(row["lattice"]).reshape(3, 3) * [[2], [1], [1]]
    return row | {
        "nsites": 2 * row["nsites"],
        "atomic_numbers": 2 * list(row["atomic_numbers"]),
        "lattice": lattice.ravel().tolist(),
        "frac_coords": np.concatenate([sites / [2, 1, 1], sites / [2, 1, 1] + [0.5, 0, 0]]).ravel().tolist(),
    }


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_column_of_numbers_gives_one_number_per_labeled_row(read, gaps, kind):
    splits = read(with_column(gaps, "band_gap", gaps["band_gap"].cast(kind)), label="band_gap", fold=1)
    expected = {row["material_id"]: row["band_gap"] for row in gaps.to_pylist() if row["band_gap"] is not None}
    everything = splits.everything
    assert everything.spectra.shape == (120, 1)
    assert {name: label.item() for name, label in by_id(everything).items()} == pytest.approx(expected, rel=SINGLE)
    assert (everything.cell_sizes == 1).all(), "a band gap is not divided by the number of atoms"
    assert 0 in expected.values(), "the gap of a metal is a number too"


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_row_without_a_finite_number_is_left_out(read, gaps, missing):
    values = gaps["band_gap"].to_pylist()
    material_id = gaps["material_id"][50].as_py()
    assert values[50] is not None
    values[50] = missing
    ids = read(
        with_column(gaps, "band_gap", pa.array(values, pa.float32())), label="band_gap", fold=1
    ).everything.material_ids
    assert len(ids) == 119
    assert material_id not in ids


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_column_without_any_number_is_refused_in_one_line(read, gaps, nothing):
    with pytest.raises(TableError, match=r"labels\.parquet: column band_gap is NULL") as caught:
        read(with_column(gaps, "band_gap", pa.array([nothing] * len(gaps), pa.float32())), label="band_gap", fold=1)
    assert "\n" not in str(caught.value)


def test_electronic_labels_are_per_atom_in_training_and_per_primitive_cell_in_evaluation(read, spectra):
    """All bundled cells are primitive."""
    rows = {row["material_id"]: row for row in spectra.to_pylist()}
    everything = read(spectra, fold=1).everything
    assert len(everything) == len(rows)
    for material_id, size, label in zip(
        everything.material_ids, everything.cell_sizes, everything.spectra, strict=True
    ):
        assert size == rows[material_id]["nsites"]
        np.testing.assert_allclose(label, np.array(rows[material_id]["edos"]) / size, rtol=SINGLE)
    assert len(set(everything.cell_sizes)) > 2, "cells of equal size would test nothing"
    true = SpectrumEvaluation(everything, np.zeros((len(everything), 128), np.float32), EDOS_GRID, ("self",)).true
    np.testing.assert_allclose(
        true, [rows[material_id]["edos"] for material_id in everything.material_ids], rtol=SINGLE
    )


def test_predictions_per_atom_are_evaluated_per_primitive_cell(read, spectra):
    everything = read(spectra, fold=1).everything
    flat = np.ones((len(everything), 128), np.float32)
    predicted = SpectrumEvaluation(everything, flat, EDOS_GRID, ("self",)).predicted
    np.testing.assert_array_equal(predicted, flat * everything.cell_sizes[:, None])


def test_supercell_with_the_label_of_the_primitive_cell_has_the_same_label_per_atom(read, spectra):
    wide = pa.Table.from_pylist([doubled(row) for row in spectra.to_pylist()], spectra.schema)
    once, twice = read(spectra, fold=1), read(wide, fold=1)
    for name in ("train", "valid", "test"):
        one, two = getattr(once, name), getattr(twice, name)
        assert [len(crystal) for crystal in two.crystals] == [2 * len(crystal) for crystal in one.crystals]
        assert two.material_ids == one.material_ids
        np.testing.assert_array_equal(two.cell_sizes, one.cell_sizes)
        torch.testing.assert_close(two.spectra, one.spectra, rtol=0, atol=0)


def test_cell_sizes_follow_their_rows(read, spectra):
    everything = read(spectra, fold=1).everything
    rows = np.random.default_rng(0).permutation(len(everything))
    for moved in (everything.take(rows), everything.take(rows[:7]) + everything.take(rows[7:])):
        assert moved.cell_sizes.tolist() == [len(crystal) for crystal in moved.crystals]
        assert moved.material_ids == [everything.material_ids[i] for i in rows]


@pytest.mark.parametrize("fold", [1, 4])
def test_rows_of_excluded_chemical_systems_are_in_no_part(read, gaps, fold):
    known = gaps.filter(pc.field("band_gap").is_valid())
    other = pa.Table.from_pylist([other_compound(row) for row in known.to_pylist()[::4]], known.schema).drop_columns(
        "band_gap"
    )
    without, with_all = read(gaps, other, label="band_gap", fold=fold), read(gaps, label="band_gap", fold=fold)
    system = systems(gaps)
    left_out = {system[row["material_id"]] for row in known.to_pylist()[::4]}
    for name in ("train", "valid", "test"):
        everything = getattr(with_all, name).material_ids
        remaining = getattr(without, name).material_ids
        assert remaining == [material_id for material_id in everything if system[material_id] not in left_out]
        assert len(remaining) < len(everything), "each part loses some rows"
    assert without.fingerprint != with_all.fingerprint


def test_excluding_every_row_is_refused_in_one_line(read, gaps):
    with pytest.raises(TableError, match="no row with split 'train'") as caught:
        read(gaps, gaps, label="band_gap", fold=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fold", range(1, 6))
def test_fold_replaces_the_column_split(read, spectra, fold):
    one_part = spectra.append_column("split", pa.array(["train"] * len(spectra)))
    rows = [row for row in read_crystals(spectra) if isinstance(row, Crystal)]
    split = split_of_folds(rows, fold, ("train", "valid", "test"))
    for table in (spectra, one_part):
        splits = read(table, fold=fold)
        for name in ("train", "valid", "test"):
            expected = [row.material_id for row, part in zip(rows, split, strict=True) if part == name]
            assert getattr(splits, name).material_ids == expected
            assert expected


def test_test_rows_are_those_of_the_fold(read, spectra):
    test = read(spectra, fold=3).test
    assert set(folds(test.crystals)) == {3}


def test_without_a_fold_the_column_split_is_required(read, spectra):
    with pytest.raises(TableError, match="missing column split"):
        read(spectra)
    names = ["train"] * 30 + ["valid"] * 6 + ["test"] * 4
    splits = read(spectra.append_column("split", pa.array(names)))
    assert [len(splits.train), len(splits.valid), len(splits.test)] == [30, 6, 4]


def test_fingerprint_depends_on_the_fold(read, spectra):
    assert len({read(spectra, fold=fold).fingerprint for fold in (1, 2, 2)}) == 2


@pytest.mark.parametrize(
    "sizes", [{"strain": STRAIN}, {"displacement": DISPLACEMENT}, {"strain": STRAIN, "displacement": DISPLACEMENT}]
)
def test_perturbation_changes_graphs_of_held_out_rows_and_nothing_else(read, spectra, sizes):
    relaxed, perturbed, again = read(spectra, fold=1), read(spectra, fold=1, **sizes), read(spectra, fold=1, **sizes)
    for name in ("train", "valid", "test"):
        before, after = getattr(relaxed, name), getattr(perturbed, name)
        assert after.material_ids == before.material_ids
        assert after.spectra.equal(before.spectra)
        np.testing.assert_array_equal(after.cell_sizes, before.cell_sizes)
        changed = [not same(a, b) for a, b in zip(before.graphs, after.graphs, strict=True)]
        assert changed == [name != "train"] * len(before), name
        assert all(same(a, b) for a, b in zip(after.graphs, getattr(again, name).graphs, strict=True)), (
            "two readings agree"
        )
        for a, b in zip(before.graphs, after.graphs, strict=True):
            np.testing.assert_array_equal(a.atomic_numbers, b.atomic_numbers)


def test_larger_strain_moves_neighbors_further(read, spectra):
    relaxed = read(spectra, fold=1).test
    changes = []
    for strain in (0.001, 0.01):
        strained = read(spectra, fold=1, strain=strain).test
        nearest = [(a.distances.min(), b.distances.min()) for a, b in zip(relaxed.graphs, strained.graphs, strict=True)]
        changes.append(np.mean([abs(b / a - 1) for a, b in nearest]))
    assert 0.2 * 0.001 < changes[0] < 2 * 0.001
    assert changes[1] == pytest.approx(10 * changes[0], rel=0.3), "the same random numbers, ten times as large"


def test_perturbation_of_size_zero_gives_the_same_graphs(read, spectra):
    for name in ("train", "valid", "test"):
        before, after = (
            getattr(splits, name)
            for splits in (read(spectra, fold=1), read(spectra, fold=1, strain=0.0, displacement=0.0))
        )
        assert all(same(a, b) for a, b in zip(before.graphs, after.graphs, strict=True))
