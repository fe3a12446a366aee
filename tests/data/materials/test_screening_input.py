import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mat2spec.data.materials.screening_input
from mat2spec.data.materials.schema import COLUMNS, INGESTED_SCHEMA
from mat2spec.data.materials.screening_input import MaterialsInput, check_condition
from mat2spec.data.shards.shard import Shard, material_id_of, read_shard, source_of
from mat2spec.errors import ConfigError, Mat2SpecError, TableError
from mat2spec.storage.location import connect_duckdb
from mat2spec.storage.rejects import reject_table
from mat2spec.storage.run_directory import RunDirectory


@pytest.fixture(scope="session")
def materials(materials) -> pa.Table:
    return materials.slice(0, 300).combine_chunks()


@pytest.fixture
def folder(materials, tmp_path) -> Path:
    """Three files of 100 rows, each in row groups of 30; one of them in a subfolder."""
    for name, start in (("b.parquet", 100), ("a.parquet", 0), ("c/d.parquet", 200)):
        file = tmp_path / "tables" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(materials.slice(start, 100), file, row_group_size=30)
    return tmp_path / "tables"


@pytest.fixture
def file(materials, tmp_path) -> Path:
    path = tmp_path / "materials.parquet"
    pq.write_table(materials, path)
    return path


def with_column(table: pa.Table, name: str, values: list | pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def read(shards: list[Shard]) -> pa.Table:
    return pa.concat_tables([read_shard(shard).table for shard in shards])


def reasons(shards: list[Shard]) -> dict[tuple[str, int], str]:
    return {(shard.name, i): str(error) for shard in shards for i, error in read_shard(shard).errors.items()}


def refusal(kind: type[Mat2SpecError], path: Path, where: str | None = None) -> str:
    with pytest.raises(kind) as caught:
        MaterialsInput.open(path, where).shards(10)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("rows_per_shard", [1, 7, 30, 31, 100, 1000])
def test_shards_cover_every_row_once_in_order(folder, materials, rows_per_shard):
    shards = MaterialsInput.open(folder).shards(rows_per_shard)
    assert read(shards).equals(materials)
    assert all(0 < len(shard) <= rows_per_shard for shard in shards)
    assert [shard.name for shard in shards] == [f"part-{i:06d}" for i in range(len(shards))]
    assert all(len(shard.files) == 1 for shard in shards)
    assert not reasons(shards)


def test_same_input_gives_the_same_shards(folder):
    one, two = (MaterialsInput.open(folder) for _ in range(2))
    assert one == two
    assert one.shards(7) == two.shards(7)


def test_shard_is_the_same_after_a_round_trip_through_json_and_arrays(folder):
    for shard in MaterialsInput.open(folder).shards(50):
        assert Shard.from_json(shard.to_json()) == shard


def test_file_folder_and_glob_name_the_same_rows(folder, materials):
    assert read(MaterialsInput.open(folder / "a.parquet").shards(40)).equals(materials.slice(0, 100))
    assert read(MaterialsInput.open(folder / "*.parquet").shards(40)).equals(materials.slice(0, 200))
    assert read(MaterialsInput.open(folder / "**" / "*.parquet").shards(40)).equals(materials)


def test_condition_selects_rows_before_they_are_divided_into_shards(folder, materials):
    shards = MaterialsInput.open(folder, "nsites <= 4 AND band_gap > 0").shards(10)
    nsites, gap = materials["nsites"].to_numpy(), materials["band_gap"].to_numpy()
    expected = materials.take(np.flatnonzero((nsites <= 4) & (gap > 0)))
    assert 10 < len(expected) < 100
    assert read(shards).equals(expected)
    assert all(row in set(range(100)) for shard in shards for row in shard.rows), (
        "rows are positions in the file, not in the selection"
    )


def test_condition_that_no_row_meets_gives_one_empty_shard(folder, materials):
    (shard,) = MaterialsInput.open(folder, "nsites > 1000").shards(10)
    assert (shard.name, len(shard)) == ("part-000000", 0)
    rows = read_shard(shard)
    assert rows.table.schema == materials.schema
    assert (len(rows.table), rows.errors) == (0, {})


def test_table_without_rows_gives_one_empty_shard(materials, tmp_path):
    pq.write_table(materials.slice(0, 0), tmp_path / "none.parquet")
    (shard,) = MaterialsInput.open(tmp_path / "none.parquet").shards(10)
    assert len(read_shard(shard).table) == 0


def test_repeated_id_is_refused_after_its_first_row_in_order_of_file_and_row(materials, tmp_path):
    ids = [f"m{i}" for i in range(20)]
    ids[3] = ids[17] = "twice"
    pq.write_table(with_column(materials.slice(0, 20), "material_id", ids), tmp_path / "b.parquet")
    ids[5], ids[9] = "m5-of-a", "twice"
    ids[:3] = ["a0", "a1", "a2"]
    pq.write_table(with_column(materials.slice(0, 20), "material_id", ids), tmp_path / "a.parquet")
    shards = MaterialsInput.open(tmp_path).shards(8)
    rejected = [(Path(shard.files[0]).stem, shard.rows[i]) for shard in shards for i in read_shard(shard).errors]
    assert rejected == [("a", 9), ("a", 17), *(("b", row) for row in range(3, 20) if row not in (5, 9))], (
        "a.parquet holds no m5 and no m9"
    )
    assert sum(error.startswith("twice: ") for error in reasons(shards).values()) == 4


def test_rows_left_out_by_the_condition_do_not_make_others_repeated(materials, tmp_path):
    ids = ["same"] * 300
    pq.write_table(with_column(materials, "material_id", ids), tmp_path / "same.parquet")
    (shard,) = MaterialsInput.open(tmp_path / "same.parquet", "nsites = 20").shards(1000)
    assert shard.repeated == tuple(range(1, len(shard)))


def test_each_row_without_an_id_is_an_error_with_its_table_and_row(materials, tmp_path):
    ids = materials["material_id"].to_pylist()
    ids[4] = ids[250] = None
    path = tmp_path / "nameless.parquet"
    pq.write_table(with_column(materials, "material_id", ids), path)
    shards = MaterialsInput.open(path).shards(100)
    errors = reasons(shards)
    assert errors.keys() == {("part-000000", 4), ("part-000002", 50)}
    assert errors["part-000000", 4].startswith(f"{path}, row 4: material_id is NULL")
    assert errors["part-000002", 50].startswith(f"{path}, row 250: material_id is NULL")


def test_null_in_a_fixed_size_list_does_not_affect_other_rows(materials, tmp_path):
    """Arrow writes such a column and cannot read it back; it has the type of our own tables."""
    lattices = materials["lattice"].to_pylist()
    lattices[4] = None
    column = pa.array(lattices, pa.list_(pa.float64(), 9))
    path = tmp_path / "fixed.parquet"
    pq.write_table(materials.set_column(materials.column_names.index("lattice"), "lattice", column), path)
    table = read(MaterialsInput.open(path).shards(100))
    assert table["lattice"].to_pylist() == lattices
    assert table["material_id"].equals(materials["material_id"])


def test_fingerprint_depends_on_names_contents_and_condition(folder, materials, tmp_path):
    fingerprint = MaterialsInput.open(folder).fingerprint
    assert MaterialsInput.open(Path(shutil.copytree(folder, tmp_path / "moved"))).fingerprint == fingerprint, (
        "a moved folder is the same input"
    )
    assert MaterialsInput.open(folder, "nsites < 9").fingerprint != fingerprint
    coordinates = materials["frac_coords"].to_pylist()
    coordinates[150][0] += 0.01
    pq.write_table(
        with_column(materials, "frac_coords", coordinates).slice(100, 100), folder / "b.parquet", row_group_size=30
    )
    changed = MaterialsInput.open(folder).fingerprint
    assert changed != fingerprint
    (folder / "b.parquet").rename(folder / "e.parquet")
    assert MaterialsInput.open(folder).fingerprint not in {fingerprint, changed}


@pytest.mark.parametrize("name", COLUMNS)
def test_missing_column_is_refused(folder, name):
    path = folder / "b.parquet"
    pq.write_table(pq.read_table(path).drop_columns(name), path)
    assert f"{path}: missing column {name}" in refusal(TableError, folder)


def test_column_of_another_type_is_refused(materials, folder):
    pq.write_table(with_column(materials, "material_id", range(300)), folder / "b.parquet")
    assert "b.parquet: column material_id is int64" in refusal(TableError, folder)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"not a table, and longer than a footer", b"PAR1" + bytes(100) + b"PAR1"]
)
def test_file_that_is_not_parquet_is_refused(folder, content):
    (folder / "b.parquet").write_bytes(content)
    assert "b.parquet: not a readable Parquet file" in refusal(TableError, folder)


def test_path_without_input_is_refused(tmp_path):
    assert f"{tmp_path / 'none'}: does not exist" in refusal(TableError, tmp_path / "none")
    assert f"{tmp_path / '*.parquet'}: matches no file" in refusal(TableError, tmp_path / "*.parquet")
    (tmp_path / "readme.md").write_text("# Not a structure")
    assert f"{tmp_path}: holds 1 file," in refusal(TableError, tmp_path)


@pytest.mark.parametrize("name", ["a.cif", "structures.zip", "structures.csv"])
def test_structure_files_are_refused_with_the_command_that_makes_a_table(folder, name):
    (folder / name).touch()
    for path in (folder, folder / name):
        assert f"mat2spec ingest files {path}" in refusal(TableError, path)


def test_directory_of_an_ingestion_names_its_table_once_it_is_finished(folder, materials, tmp_path):
    ingestion = RunDirectory(tmp_path / "ingested", "materials")
    ingestion.claim({}, {})
    ingestion.commit("part-000000", materials, reject_table([]))
    assert f"{ingestion.path}: is not finished" in refusal(TableError, ingestion.path)
    ingestion.finish(len(materials), {})
    assert read(MaterialsInput.open(ingestion.path).shards(400)).equals(materials)


@pytest.mark.parametrize("where", ["nsites <", "nosuch = 1", "nsites = 'many'", "1; DROP TABLE x"])
def test_condition_that_is_not_valid_sql_is_refused(folder, where):
    assert refusal(ConfigError, folder, where).startswith(f"where: {where}: ")


def test_hidden_files_are_ignored(folder, materials):
    (folder / ".part.parquet.partial").write_bytes(b"half")
    (folder / ".hidden.parquet").write_bytes(b"half")
    assert read(MaterialsInput.open(folder).shards(100)).equals(materials)


def rows_done(**rows: int) -> pa.Table:
    return pa.table({"material_id": pa.array(list(rows)), "rows": pa.array(list(rows.values()), pa.int64())})


def test_rows_that_are_done_are_left_out_the_first_of_each_id(materials, tmp_path):
    ids = ["a", "b", "a", None, "c", "a", None]
    pq.write_table(with_column(materials.slice(0, 7), "material_id", ids), tmp_path / "table.parquet")
    done = pa.concat_tables(
        [rows_done(a=2, b=1), pa.table({"material_id": pa.array([None], pa.string()), "rows": pa.array([1])})]
    )
    shards = MaterialsInput.open(tmp_path / "table.parquet").shards(2, "added-001", done)
    assert [shard.name for shard in shards] == ["added-001-000000", "added-001-000001"]
    assert read(shards)["material_id"].to_pylist() == ["c", "a", None]
    errors = reasons(shards)
    assert errors.keys() == {("added-001-000000", 1), ("added-001-000001", 0)}
    assert errors["added-001-000000", 1].startswith("a: ")
    assert "material_id is NULL" in errors["added-001-000001", 0]


def test_input_that_lacks_rows_that_are_done_is_refused(file):
    with pytest.raises(TableError, match=r"1 material .* gone;"):
        MaterialsInput.open(file).shards(100, "added-001", rows_done(gone=1))
    with pytest.raises(TableError, match=r"1 material .* mp-1000;"):
        MaterialsInput.open(file).shards(100, "added-001", rows_done(**{"mp-1000": 2}))


@pytest.mark.parametrize("done", [None, rows_done(gone=0)])
def test_ids_are_read_once(file, monkeypatch, done):
    reads = []

    def connect(files):
        connection = connect_duckdb(files)
        connection.create_function("noted", lambda x: reads.append(x) or x, [int], int, side_effects=True)
        return connection

    monkeypatch.setattr(mat2spec.data.materials.screening_input, "connect_duckdb", connect)
    shards = MaterialsInput.open(file, "noted(nsites) > 0").shards(100, "added-001", done)
    assert (sum(map(len, shards)), len(reads)) == (300, 300)


@pytest.mark.parametrize("where", ["nsites <", "nosuch = 1", "nsites = 'many'", "1; DROP TABLE x"])
def test_condition_on_a_table_that_is_not_made_yet_is_checked_by_its_columns(where):
    with pytest.raises(ConfigError, match=f"^{re.escape(f'where: {where}: ')}"):
        check_condition(where, INGESTED_SCHEMA)


@pytest.mark.parametrize("where", [None, "nsites < 5 AND duplicate_of IS NULL", "nsites_primitive = 2"])
def test_condition_on_columns_that_the_table_will_have_is_accepted(where):
    check_condition(where, INGESTED_SCHEMA)


def test_parts_of_a_shard_are_its_rows(materials, tmp_path):
    ids = ["a", "b", "a", None, "c"]
    pq.write_table(with_column(materials.slice(0, 5), "material_id", ids), tmp_path / "table.parquet")
    (shard,) = MaterialsInput.open(tmp_path / "table.parquet").shards(10)
    assert [
        row
        for start, stop in ((0, 2), (2, 3), (3, 5))
        for row in read([shard.part(start, stop)])["material_id"].to_pylist()
    ] == ids
    assert read_shard(shard.part(2, 4)).errors.keys() == {0, 1}
    assert len(read_shard(shard.part(0, 0)).table) == 0
    assert [material_id_of(shard, i) for i in range(5)] == ids
    assert [source_of(shard, i) for i in range(5)] == read_shard(shard).sources
