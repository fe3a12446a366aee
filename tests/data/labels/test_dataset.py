import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import StructureError, TableError
from mat2spec.structure.graph import build_graph


@pytest.fixture
def read(small_table, tmp_path):
    """Read the small table after a change of some columns."""

    def change_and_read(*, check_graphs: bool = True, **columns: list | pa.Array) -> LabeledSplits:
        table = small_table
        for name, values in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
        path = tmp_path / "labels.parquet"
        pq.write_table(table, path)
        return read_labels(path, DataConfig(table=str(path)), GraphConfig(), PHDOS_GRID, check_graphs=check_graphs)

    return change_and_read


@pytest.fixture
def labels(small_table) -> list[list[float]]:
    return small_table["phdos"].to_pylist()


def test_bundled_split_is_that_of_the_benchmark(bundled):
    """Chen et al., 10.1002/advs.202004214: 1192, 141 and 189 materials, no material in two parts."""
    table = pq.read_table(bundled, columns=["material_id", "split"]).to_pydict()
    assert {name: table["split"].count(name) for name in ("train", "valid", "test")} == {
        "train": 1192,
        "valid": 141,
        "test": 189,
    }
    assert len(set(table["material_id"])) == len(table["split"]) == 1522


def test_rows_keep_their_material_graph_and_spectrum(small_table, splits):
    expected = {row["material_id"]: row for row in small_table.to_pylist()}
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [24, 6, 6]
    for name in ("train", "valid", "test"):
        part = getattr(splits, name)
        for material_id, graph, spectrum in zip(part.material_ids, part.graphs, part.spectra, strict=True):
            row = expected.pop(material_id)
            assert row["split"] == name
            assert graph.atomic_numbers.tolist() == row["atomic_numbers"]
            assert spectrum.tolist() == pytest.approx(row["phdos"])
    assert not expected


def test_elements_are_those_of_all_crystals(splits):
    assert {"Ba", "Te"} <= set(splits.train.elements)
    assert splits.train.elements == sorted(set(splits.train.elements))


def test_fingerprint_depends_on_the_content_and_not_on_the_file(read, splits):
    assert read().fingerprint == splits.fingerprint


@pytest.mark.parametrize("column", ["phdos", "split", "material_id", "frac_coords"])
def test_fingerprint_changes_with_labels_splits_ids_and_structures(read, small_table, splits, column):
    values = small_table[column].to_pylist()
    if column == "split":
        values[0] = "test"
    elif column == "material_id":
        values[0] = "mp-other"
    else:
        values[0][1] += 0.01
    assert read(**{column: values}).fingerprint != splits.fingerprint


@pytest.mark.parametrize("name", ["phdos", "split", "lattice"])
def test_missing_column_is_refused_in_one_line(small_table, tmp_path, name):
    path = tmp_path / "labels.parquet"
    pq.write_table(small_table.drop_columns(name), path)
    with pytest.raises(TableError, match=f"missing column {name}") as caught:
        read_labels(path, DataConfig(table=str(path)), GraphConfig(), PHDOS_GRID)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ([1.0] * 50, "50 values; .*51 bins"),
        (None, "NULL; .*51 bins"),
        ([0.0] * 51, "not all zero"),
        ([1.0] * 50 + [-0.1], "non-negative"),
        ([1.0] * 50 + [float("nan")], "finite"),
        ([1.0] * 50 + [float("inf")], "finite"),
        ([1.0] * 50 + [None], "finite"),
    ],
)
def test_label_that_is_not_a_spectrum_is_refused_by_material(read, labels, label, reason):
    labels[3] = label
    with pytest.raises(TableError, match=rf"labels\.parquet: mp-10044: .*{reason}") as caught:
        read(phdos=labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bins", "reason"), [(2, "the highest frequency is 20 cm⁻¹"), (3, "force constants of")])
def test_phonon_labels_whose_frequencies_are_in_another_unit_are_refused(read, labels, bins, reason):
    """The spectrum of mp-10044 in THz or meV, on a grid in cm⁻¹: all of it in the first bins."""
    labels[3] = [1.0] * bins + [0.0] * (51 - bins)
    with pytest.raises(TableError, match=rf"labels\.parquet: mp-10044: .*{reason}.*convert.*or remove the row"):
        read(phdos=labels)


@pytest.mark.parametrize("values", [["a"] * 36, [True] * 36])
def test_column_of_labels_without_numbers_is_refused(read, values):
    with pytest.raises(TableError, match="phdos"):
        read(phdos=values)


def test_structure_that_cannot_be_a_crystal_is_refused(read, small_table):
    numbers = small_table["atomic_numbers"].to_pylist()
    numbers[3][0] = 0
    with pytest.raises(TableError, match=r"mp-10044: .*atomic number 0; .*remove the row"):
        read(atomic_numbers=numbers)


def overlapping(small_table: pa.Table) -> list[list[float]]:
    """Coordinates with two atoms of the fourth row, mp-10044, at the same place."""
    coords = small_table["frac_coords"].to_pylist()
    coords[3][3:6] = coords[3][:3]
    return coords


def test_structure_whose_graph_cannot_be_built_is_refused(read, small_table):
    with pytest.raises(TableError, match=r"labels\.parquet: mp-10044: .*overlap.*; remove the row") as caught:
        read(frac_coords=overlapping(small_table))
    assert "\n" not in str(caught.value)


def test_without_the_check_a_graph_that_cannot_be_built_is_refused_when_it_is_used(read, small_table):
    splits = read(check_graphs=False, frac_coords=overlapping(small_table))
    assert len(splits.test.graphs) == 6
    with pytest.raises(StructureError, match=r"mp-10044: .*overlap"):
        splits.train.graphs  # noqa: B018 - it is a property


def test_lone_atom_is_refused(read, small_table):
    columns = {name: small_table[name].to_pylist() for name in ("lattice", "frac_coords", "atomic_numbers", "nsites")}
    columns["lattice"][3] = np.diag([9.0, 9.0, 9.0]).ravel().tolist()
    columns["frac_coords"][3] = [0.0, 0.0, 0.0]
    columns["atomic_numbers"][3] = [29]
    columns["nsites"][3] = 1
    with pytest.raises(TableError, match=r"mp-10044: .*8 Å.*; remove the row"):
        read(**columns)


def test_displacement_that_makes_atoms_overlap_is_refused(bundled):
    data = DataConfig(table=str(bundled), displacement=0.9)
    with pytest.raises(TableError, match=r"data\.displacement 0\.9 Å, mp-.*overlap.*use smaller ones"):
        read_labels(bundled, data, GraphConfig(), PHDOS_GRID)


def test_graphs_are_built_once_and_only_where_they_are_used(read, monkeypatch):
    built = []
    monkeypatch.setattr(
        "mat2spec.data.labels.lazy_graphs.build_graph",
        lambda crystal, config: built.append(crystal.material_id) or build_graph(crystal, config),
    )
    splits = read()
    assert len(splits.train) == 24
    assert not built
    assert len(splits.test.graphs) == 6
    assert built == splits.test.material_ids
    (splits.test + splits.valid).take(np.arange(8)).graphs  # noqa: B018 - it is a property
    assert built == [*splits.test.material_ids, *splits.valid.material_ids[:2]]


def test_split_without_rows_is_refused(read):
    with pytest.raises(TableError, match="no row with split 'valid'; it has 'test', 'train'"):
        read(split=["train"] * 30 + ["test"] * 6)


def test_material_in_two_splits_is_refused(read, small_table):
    """The network would be trained on its label and then tested on it."""
    ids = small_table["material_id"].to_pylist()
    ids[-1] = ids[0]
    with pytest.raises(TableError, match="mp-1000"):
        read(material_id=ids)


@pytest.mark.parametrize(
    ("content", "rule"), [(None, "there is no such table of labels"), (b"not parquet", "cannot read the table")]
)
def test_table_that_cannot_be_read_is_refused_in_one_line(tmp_path, content, rule):
    path = tmp_path / "labels.parquet"
    if content:
        path.write_bytes(content)
    with pytest.raises(TableError, match=rf"labels\.parquet: {rule}") as caught:
        read_labels(path, DataConfig(table=str(path)), GraphConfig(), PHDOS_GRID)
    assert "\n" not in str(caught.value)
