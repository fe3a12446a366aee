"""Tables as other programs and people lay them out: each row is read once with its own values, by every command."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.config import ReadingConfig
from mat2spec.data.ingest.duplicates import find_duplicates
from mat2spec.data.ingest.listing import list_sources
from mat2spec.data.ingest.planning import plan_shards
from mat2spec.data.ingest.reading import SourceReader
from mat2spec.data.materials.lookup import read_crystals_by_id
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.materials.whole_table import read_whole_table
from mat2spec.data.shards.shard import read_shard
from mat2spec.data.shards.step import StageTimer
from mat2spec.errors import TableError
from mat2spec.structure.crystal import Crystal

ROWS_PER_SHARD = 3


@pytest.fixture(scope="module")
def rows(materials) -> pa.Table:
    return materials.slice(0, 4).combine_chunks()


def screen(path: Path) -> list[Crystal | Exception]:
    crystals: list[Crystal | Exception] = []
    materials = MaterialsInput.open(path)
    for shard in materials.shards(ROWS_PER_SHARD):
        part = read_shard(shard)
        crystals += [part.errors.get(i, crystal) for i, crystal in enumerate(read_crystals(part.table))]
    return crystals


def verify(path: Path) -> list[Crystal | Exception]:
    materials = MaterialsInput.open(path)
    ids = [crystal.material_id for crystal in screen(path) if isinstance(crystal, Crystal)]
    return list(read_crystals_by_id(materials, ids).values())


def ingest(path: Path) -> list[Crystal | Exception]:
    crystals: list[Crystal | Exception] = []
    for shard in plan_shards(list_sources([str(path)]).sources, ROWS_PER_SHARD):
        tables = SourceReader(ReadingConfig(), 60.0).compute(shard, StageTimer())
        crystals += [*read_crystals(tables.results), *(TableError(row["error"]) for row in tables.rejects.to_pylist())]
    return crystals


def train(path: Path) -> list[Crystal | Exception]:
    return list(read_crystals(read_whole_table(path)))


@pytest.fixture(params=[screen, verify, ingest, train], ids=lambda function: function.__name__)
def read(request) -> Callable[[Path], list[Crystal | Exception]]:
    """What a command reads at a path."""
    return request.param


def replaced(table: pa.Table, name: str, kind: pa.DataType | Callable[[list], pa.Array]) -> pa.Table:
    values = table[name].to_pylist()
    column = kind(values) if callable(kind) else pa.array(values, kind)
    return table.set_column(table.column_names.index(name), name, column)


def assert_read(crystals: list[Crystal | Exception], rows: pa.Table) -> None:
    """Each row once, with its id, cell and sites."""
    expected = {row.material_id: row for row in read_crystals(rows)}
    found = {crystal.material_id: crystal for crystal in crystals if isinstance(crystal, Crystal)}
    assert found.keys() == expected.keys(), crystals
    assert len(crystals) == len(expected)
    for name, crystal in found.items():
        np.testing.assert_array_equal(crystal.atomic_numbers, expected[name].atomic_numbers)
        np.testing.assert_allclose(crystal.lattice, expected[name].lattice, rtol=1e-6)
        np.testing.assert_allclose(crystal.frac_coords, expected[name].frac_coords, atol=1e-6)


def in_threes(values: list) -> list:
    return [np.reshape(numbers, (-1, 3)).tolist() for numbers in values]


def tensors(values: list) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(in_threes(values)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("material_id", pa.string_view()),
        ("material_id", pa.large_string()),
        ("material_id", pa.dictionary(pa.int8(), pa.string())),
        ("formula_pretty", pa.dictionary(pa.int32(), pa.large_string())),
        ("atomic_numbers", pa.list_view(pa.uint8())),
        ("atomic_numbers", pa.large_list(pa.int64())),
        ("lattice", pa.list_view(pa.float64())),
        ("lattice", pa.large_list_view(pa.float32())),
        ("lattice", pa.list_(pa.float32(), 9)),
        ("lattice", lambda values: pa.array(in_threes(values), pa.list_(pa.list_(pa.float64(), 3), 3))),
        ("lattice", lambda values: pa.array(in_threes(values), pa.list_view(pa.list_view(pa.float64())))),
        ("lattice", tensors),
        ("frac_coords", pa.large_list(pa.float64())),
        ("frac_coords", lambda values: pa.array(in_threes(values), pa.large_list(pa.list_(pa.float32())))),
        ("frac_coords", pa.large_list_view(pa.float64())),
    ],
    ids=str,
)
def test_type_that_a_library_writes_holds_the_same_crystals(read, rows, tmp_path, name, kind):
    pq.write_table(replaced(rows, name, kind), tmp_path / "table.parquet", row_group_size=3)
    assert_read(read(tmp_path / "table.parquet"), rows)


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.list_view(pa.string_view()), pa.dictionary(pa.int8(), pa.string())]
)
def test_further_column_of_any_type_is_read_along(read, rows, tmp_path, kind):
    values = [["a"], None, [], ["b"]] if "list" in str(kind) else ["a", None, "", "b"]
    pq.write_table(rows.append_column("note", pa.array(values, kind)), tmp_path / "table.parquet")
    assert_read(read(tmp_path / "table.parquet"), rows)


@pytest.mark.parametrize(
    "name", ["MATERIAL_ID", "Nsites", "filename", "file_row_number", "file_index", "c0", "file", "row"]
)
def test_further_column_whose_name_resembles_another_s_replaces_none(read, rows, tmp_path, name):
    for position in (0, rows.num_columns):
        table = rows.add_column(position, name, pa.array([1, 1, 1, 1]))
        path = tmp_path / f"{position}.parquet"
        pq.write_table(table, path)
        assert_read(read(path), rows)


@pytest.mark.parametrize("folder", ["split=old", "nsites=1000", "material_id=x", "file_row_number=0/year=2020"])
def test_folder_named_like_a_partition_replaces_no_column(read, rows, tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    table = rows.append_column("split", pa.array(["train"] * 4))
    pq.write_table(table, tmp_path / folder / "table.parquet")
    assert_read(read(tmp_path), rows)


def test_condition_sees_the_columns_of_the_file_and_not_of_its_folder(rows, tmp_path):
    (tmp_path / "split=old").mkdir()
    table = rows.append_column("split", pa.array(["train", "test"] * 2)).add_column(0, "NSITES", pa.array([99] * 4))
    pq.write_table(table, tmp_path / "split=old" / "table.parquet")
    for where, count in (("split = 'test'", 2), ("split = 'old'", 0), ("nsites < 99", 4)):
        assert sum(map(len, MaterialsInput.open(tmp_path, where).shards(2))) == count


@pytest.mark.parametrize("name", ["t[1].parquet", "t?.parquet", "t*.parquet", "100% ünï.parquet", "t.PARQUET", "t.pq"])
def test_file_of_any_name_is_read_and_not_its_neighbour(read, rows, tmp_path, name):
    pq.write_table(rows.slice(0, 2), tmp_path / name)
    pq.write_table(rows.slice(2, 2), tmp_path / "t1.parquet")
    assert_read(read(tmp_path / name), rows.slice(0, 2))
    assert_read(read(tmp_path), rows)


def test_files_with_other_columns_in_another_order_are_one_table(read, rows, tmp_path):
    pq.write_table(rows.slice(0, 1), tmp_path / "a.parquet")
    reverse = rows.slice(1, 1).select(rows.column_names[::-1]).append_column("more", pa.array(["x"]))
    pq.write_table(reverse, tmp_path / "b.parquet")
    pq.write_table(replaced(rows.slice(2, 2), "material_id", pa.string_view()), tmp_path / "c.parquet")
    assert_read(read(tmp_path), rows)


def test_repeated_ids_are_found_whatever_the_further_columns_are_called(rows, tmp_path):
    """Those of user tables are copied into the staged tables, in which duplicates are looked for."""
    names = ("file_row_number", "file_index", "filename", "MATERIAL_ID", "Content_Hash")
    table = rows.append_column("content_hash", pa.array(list("abcd")))
    for name in names:
        table = table.add_column(0, name, pa.array([0] * 4))
    for file in ("a[1].parquet", "a1.parquet"):
        pq.write_table(table, tmp_path / file)
    duplicates = find_duplicates([str(tmp_path / "a[1].parquet"), str(tmp_path / "a1.parquet")]).rows
    assert [(row["file"], row["row"], row["repeated"]) for row in duplicates.to_pylist()] == [
        (1, i, True) for i in range(4)
    ]


@pytest.mark.parametrize("material_id", [None, ""])
def test_row_without_an_id_is_refused(read, rows, tmp_path, material_id):
    ids = rows["material_id"].to_pylist()
    ids[1] = material_id
    pq.write_table(replaced(rows, "material_id", lambda _: pa.array(ids)), tmp_path / "table.parquet")
    if read is train:
        with pytest.raises(TableError, match="material_id is NULL or empty in 1 row"):
            read(tmp_path / "table.parquet")
        return
    crystals = read(tmp_path / "table.parquet")
    errors = [str(crystal) for crystal in crystals if not isinstance(crystal, Crystal)]
    assert sum(isinstance(crystal, Crystal) for crystal in crystals) == 3
    assert read is verify or ["material_id is NULL or empty" in error for error in errors] == [True]


IDS = [
    "001234",
    "1234",
    "9007199254740993",
    "9007199254740992",
    "1e5",
    "100000.0",
    "true",
    "True",
    "NA",
    "NaN",
    "2020-01-01",
]


def test_ids_in_a_csv_file_stay_as_written(rock_salt, tmp_path):
    cif = rock_salt.to_structure().to(fmt="cif")
    lines = ["material_id,cif", *(f'{name},"{cif}"' for name in IDS)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert [crystal.material_id for crystal in ingest(tmp_path / "t.csv")] == IDS


def test_row_of_a_csv_file_without_an_id_is_a_reject(rock_salt, tmp_path):
    cif = rock_salt.to_structure().to(fmt="cif")
    (tmp_path / "t.csv").write_text(f'material_id,cif\n,"{cif}"\nb,"{cif}"\n')
    crystal, error = ingest(tmp_path / "t.csv")
    assert crystal.material_id == "b"
    assert "material_id is NULL or empty" in str(error)


def test_cif_with_a_latin1_name_in_a_csv_file_is_read(rock_salt, tmp_path):
    cif = f"# Müller\n{rock_salt.to_structure().to(fmt='cif')}"
    (tmp_path / "t.csv").write_bytes(f'material_id,cif\na,"{cif}"\n'.encode("latin-1"))
    (crystal,) = ingest(tmp_path / "t.csv")
    assert (crystal.material_id, crystal.elements) == ("a", ["Cl", "Na"])


@pytest.mark.parametrize(
    ("kind", "ids", "read"),
    [
        (pa.int64(), [7, 2**62 + 1], ["7", "4611686018427387905"]),
        (pa.binary(), [b"a", "é".encode()], ["a", "é"]),
        (pa.string_view(), ["001", "1"], ["001", "1"]),
        (pa.dictionary(pa.int8(), pa.string()), ["001", "1"], ["001", "1"]),
    ],
)
def test_ids_beside_a_column_of_cif_texts_are_their_text(rock_salt, tmp_path, kind, ids, read):
    cif = rock_salt.to_structure().to(fmt="cif").encode()
    pq.write_table(pa.table({"material_id": pa.array(ids, kind), "cif": [cif] * 2}), tmp_path / "t.parquet")
    assert [crystal.material_id for crystal in ingest(tmp_path / "t.parquet")] == read


@pytest.mark.parametrize(
    "ids", [pa.array([[1], [2]]), pa.array([b"\xe9", b"b"]), pa.array([b"\xe9", b"b"]).view(pa.string())]
)
def test_ids_that_are_no_text_are_refused(rock_salt, tmp_path, ids):
    cif = rock_salt.to_structure().to(fmt="cif")
    pq.write_table(pa.table({"material_id": ids, "cif": [cif] * 2}), tmp_path / "t.parquet")
    (error,) = ingest(tmp_path / "t.parquet")
    assert "the table cannot be read" in str(error)
    assert "\n" not in str(error)


def test_table_without_rows_is_nothing_to_work_on(rows, tmp_path):
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(rows.slice(0, 0), tmp_path / name)
    with pytest.raises(TableError, match="2 tables without any row"):
        MaterialsInput.open(tmp_path).require_rows(tmp_path)
    pq.write_table(rows.slice(0, 1), tmp_path / "c.parquet")
    MaterialsInput.open(tmp_path).require_rows(tmp_path)
