"""Opening of tables: the file's own columns, in plain types, and ids as they are written."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.errors import TableError
from mat2spec.storage.location import connect_duckdb
from mat2spec.storage.plain_types import plain_table, plain_type
from mat2spec.storage.tables import (
    FILE,
    ROW,
    read_csv,
    read_parquet_rows,
    read_parquet_table,
    read_schema,
    scan_parquet,
    sql_names,
)

NUMBERS = [[1.0, 2.0, 3.0], None, [], [4.0]]
TEXTS = ["a", None, "", "longer than twelve bytes"]
ROWS = [[[1.0, 2.0, 3.0]], None, [], [[4.0]]]


@pytest.mark.parametrize(
    ("values", "stored", "plain"),
    [
        (TEXTS, pa.string_view(), pa.string()),
        (TEXTS, pa.dictionary(pa.int32(), pa.string()), pa.string()),
        ([b"a", None], pa.binary_view(), pa.binary()),
        (NUMBERS, pa.list_view(pa.float64()), pa.list_(pa.float64())),
        (NUMBERS, pa.large_list_view(pa.float64()), pa.large_list(pa.float64())),
        (ROWS, pa.list_view(pa.list_view(pa.float64())), pa.list_(pa.list_(pa.float64()))),
        (ROWS, pa.list_(pa.list_view(pa.float64())), pa.list_(pa.list_(pa.float64()))),
        ([{"x": text} for text in TEXTS], pa.struct({"x": pa.string_view()}), pa.struct({"x": pa.string()})),
        ([[("k", text)] for text in TEXTS], pa.map_(pa.string(), pa.string_view()), pa.map_(pa.string(), pa.string())),
        ([["a", "b"], None], pa.list_(pa.string_view(), 2), pa.list_(pa.string(), 2)),
    ],
)
def test_views_and_dictionaries_become_plain_columns_of_the_same_values(values, stored, plain):
    table = pa.table({"x": pa.array(values, stored), "other": pa.array(range(len(values)))})
    for start in range(len(values)):
        part = plain_table(table.slice(start), "table")
        assert part["x"].type == plain
        assert part["x"].to_pylist() == values[start:]
        assert part["other"].equals(table["other"].slice(start))


def test_tensor_is_the_list_of_its_numbers_unless_they_are_stored_in_another_order():
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(18.0).reshape(2, 3, 3))
    table = plain_table(pa.table({"lattice": tensors}), "table")
    assert table["lattice"].to_pylist() == np.arange(18.0).reshape(2, 9).tolist()
    transposed = pa.fixed_shape_tensor(pa.float64(), [3, 3], permutation=[1, 0])
    assert plain_type(transposed) == transposed


def test_plain_table_is_not_copied():
    table = pa.table({"a": [1.5], "b": [["x"]]})
    assert plain_table(table, "table") is table


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([[1], [2]], names=["x", "x"]), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("x,x\n1,2\n")
    for read in (read_schema, read_parquet_table, lambda path: read_csv(path, text=())):
        with pytest.raises(TableError, match=r"t\.\w+: 2 columns are named x; rename them"):
            read(str(tmp_path / ("t.parquet" if read in (read_schema, read_parquet_table) else "t.csv")))


@pytest.mark.parametrize("name", ["t[1].parquet", "t?.parquet", "material_id=x/split=old/t.parquet"])
def test_scan_has_the_rows_and_columns_of_the_files_and_no_others(tmp_path, name):
    own = {"MATERIAL_ID": "X", "material_id": "a", "filename": "f", "file_row_number": 7, "file_index": 8, "nsites": 2}
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([own, own | {"material_id": "b"}]), path)
    pq.write_table(pa.Table.from_pylist([own | {"material_id": "other"}]), tmp_path / "t1.parquet")
    pq.write_table(pa.Table.from_pylist([{"material_id": "c", "more": True}]), tmp_path / "second.parquet")
    files = [str(path), str(tmp_path / "second.parquet")]
    sql, parameters = scan_parquet(files, [read_schema(file).names for file in files])
    with connect_duckdb(files) as connection:
        table = connection.sql(f"SELECT * FROM ({sql}) ORDER BY {FILE}, {ROW}", params=parameters).to_arrow_table()
    assert table[FILE].to_pylist() == [0, 0, 1]
    assert table[ROW].to_pylist() == [0, 1, 0]
    assert table["material_id"].to_pylist() == ["a", "b", "c"]
    assert table["MATERIAL_ID_1"].to_pylist() == ["X", "X", None]
    assert [table[column].to_pylist()[0] for column in ("filename", "file_row_number", "nsites")] == ["f", 7, 2]


@pytest.mark.parametrize(
    ("names", "distinct"),
    [
        (["a", "b"], ["a", "b"]),
        (["Gap", "nsites"], ["Gap", "nsites"]),
        (["MATERIAL_ID", "material_id"], ["MATERIAL_ID_1", "material_id"]),
        (["material_id", "Material_Id", "MATERIAL_ID"], ["material_id", "Material_Id_1", "MATERIAL_ID_2"]),
        (["GAP", "Gap", "gap_1"], ["GAP", "Gap_2", "gap_1"]),
    ],
)
def test_name_in_lower_case_is_kept_among_names_that_sql_takes_for_one(names, distinct):
    assert sql_names(names) == distinct


def test_null_in_a_fixed_size_list_affects_no_other_row_group(tmp_path):
    """Arrow cannot read it back; the row group with it is read as lists, the others as fixed-size lists."""
    values = [[float(i)] * 9 for i in range(6)]
    values[1] = None
    path = tmp_path / "t.parquet"
    table = pa.table({"Lattice": pa.array(values, pa.list_(pa.float64(), 9)), "lattice": list(range(6))})
    pq.write_table(table, path, row_group_size=2)
    for read in (read_parquet_table(str(path)), read_parquet_rows(str(path), range(6))):
        assert read.to_pydict() == {"Lattice": values, "lattice": list(range(6))}


def test_table_that_was_written_again_is_read_again(tmp_path):
    for value in (1, 2):
        pq.write_table(pa.table({"x": [value]}), tmp_path / "t.parquet")
        assert read_parquet_table(str(tmp_path / "t.parquet"))["x"].to_pylist() == [value]


IDS = [
    "001234",
    "1234",
    "9007199254740993",
    "1e5",
    "100000",
    "true",
    "True",
    "NA",
    "null",
    "2020-01-01",
    "1.0",
    " a",
    "é",
]


def test_ids_of_a_csv_file_are_as_written_and_other_columns_as_arrow_finds_them(tmp_path):
    (tmp_path / "t.csv").write_text("material_id,gap\n" + "".join(f"{name},0{i}\n" for i, name in enumerate(IDS)))
    table = read_csv(str(tmp_path / "t.csv"), text=("material_id", "cif"))
    assert table["material_id"].to_pylist() == IDS
    assert table["gap"].to_pylist() == list(range(len(IDS)))


def test_text_that_is_not_utf8_is_latin1_value_by_value(tmp_path):
    lines = [b"material_id,note", "é,".encode() + "Müller".encode("latin-1"), b"a,plain"]
    (tmp_path / "t.csv").write_bytes(b"\n".join(lines))
    table = read_csv(str(tmp_path / "t.csv"), text=("material_id",))
    assert table.to_pydict() == {"material_id": ["é", "a"], "note": ["Müller", "plain"]}


@pytest.mark.parametrize("content", [b"", b"a,b\n1\n", "é,b\n1,2\n".encode("latin-1"), "a,b\n1,2\n".encode("utf-16")])
def test_csv_that_cannot_be_read_is_one_line(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableError, match=r"t\.csv: not a readable CSV file") as caught:
        read_csv(str(tmp_path / "t.csv"), text=("a",))
    assert "\n" not in str(caught.value)
