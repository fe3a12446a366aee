"""Shards of a user's files, and what is read from them."""

import json
import signal
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from mat2spec.config import GraphConfig, ReadingConfig
from mat2spec.data.ingest.listing import list_sources
from mat2spec.data.ingest.planning import plan_shards
from mat2spec.data.ingest.reading import SourceReader
from mat2spec.data.ingest.user_tables import ingested_schema
from mat2spec.data.materials.schema import INGESTED_SCHEMA, check_schema, read_crystals
from mat2spec.data.shards.shard import Shard, material_id_of, source_of
from mat2spec.data.shards.step import ShardTables, StageTimer
from mat2spec.structure import neighbor_loops
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph
from mat2spec.structure.symmetry import primitive_nsites

CIF_DIGITS = 1e-5
"""[Å] Precision of a distance in a CIF of eight decimals and in a POSCAR."""


def read(shard: Shard, **settings: object) -> ShardTables:
    return SourceReader(ReadingConfig(**settings), 60.0).compute(shard, StageTimer())


def plan(path: Path, rows_per_shard: int = 100) -> list[Shard]:
    return plan_shards(list_sources([str(path)]).sources, rows_per_shard)


def bonds(crystal: Crystal) -> np.ndarray:
    """Sorted lengths of all edges: the same for any order of sites and any setting of the axes."""
    return np.sort(build_graph(crystal, GraphConfig()).distances)


@pytest.fixture
def folder(real_crystals, tmp_path) -> Path:
    """Five POSCAR files, an archive with a sixth, a table of CIF texts, and a Parquet table of seven rows."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for i, crystal in enumerate(real_crystals[:5]):
        crystal.to_structure().to(str(folder / ("deep" if i == 4 else "") / f"m{i}.vasp"), fmt="poscar")
    real_crystals[5].to_structure().to(str(tmp_path / "m5.cif"))
    with tarfile.open(folder / "archive.tar", "w") as archive:
        archive.add(tmp_path / "m5.cif", "x/m5.cif")
    rows = [crystal.to_structure() for crystal in real_crystals[:7]]
    structures = pa.array([json.dumps(structure.as_dict()) for structure in rows])
    table = pa.table({"material_id": [f"t{i}" for i in range(7)], "structure": structures, "gap": list(range(7))})
    pq.write_table(table, folder / "table.parquet")
    (folder / "table.csv").write_text("material_id,cif,mass\nc0,none,1.5\n")
    return folder


@pytest.mark.parametrize("suffix", ["cif", "vasp", "poscar", "json"])
def test_each_format_gives_the_same_crystal(real_crystals, tmp_path, suffix):
    for crystal in real_crystals:
        file = tmp_path / f"{crystal.material_id}.{suffix}"
        crystal.to_structure().to(str(file), fmt="poscar" if suffix in ("vasp", "poscar") else suffix)
    (shard,) = plan(tmp_path)
    table, rejects = read(shard)
    assert len(rejects) == 0
    rows = {row.material_id: row for row in read_crystals(table) if isinstance(row, Crystal)}
    assert rows.keys() == {crystal.material_id for crystal in real_crystals}
    for crystal in real_crystals:
        assert rows[crystal.material_id].formula == crystal.formula
        np.testing.assert_allclose(bonds(rows[crystal.material_id]), bonds(crystal), atol=CIF_DIGITS)


def test_oxidation_states_are_dropped_and_disorder_is_a_reject(rock_salt, tmp_path):
    charged = rock_salt.to_structure().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    charged.to(str(tmp_path / "salt.cif"))
    sites = [{"Na": 0.5, "K": 0.5}, "Cl"]
    mixed = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), sites, [[0, 0, 0], [0.5, 0.5, 0.5]])
    mixed.to(str(tmp_path / "mixed.cif"))
    (shard,) = plan(tmp_path)
    table, rejects = read(shard)
    (salt,) = read_crystals(table)
    assert (salt.material_id, salt.elements) == ("salt", ["Cl", "Na"])
    (reject,) = rejects.to_pylist()
    assert (reject["material_id"], reject["source"], reject["stage"]) == ("mixed", str(tmp_path / "mixed.cif"), "read")
    table, rejects = read(shard, disorder="ordered")
    assert (len(table), len(rejects)) == (2, 0)


def test_files_share_shards_and_archives_and_pieces_of_tables_have_their_own(folder):
    shards = plan(folder, 3)
    assert [shard.name for shard in shards] == [f"part-{i:06d}" for i in range(len(shards))]
    contents = [(Path(shard.files[0]).suffix, len(shard.files), shard.rows) for shard in shards]
    assert contents == [
        (".tar", 1, None),
        (".csv", 1, None),
        (".parquet", 1, range(3)),
        (".parquet", 1, range(3, 6)),
        (".parquet", 1, range(6, 7)),
        (".vasp", 3, None),
        (".vasp", 2, None),
    ]
    assert plan(folder, 3) == shards


def test_shards_survive_json_and_their_parts_are_read_like_the_whole(folder):
    for shard in plan(folder):
        assert Shard.from_json(shard.to_json()) == shard
        for settings in ({}, {"ids": "path"}):
            whole = read(shard, **settings)
            parts = [read(shard.part(i, i + 1), **settings) for i in range(len(shard))]
            assert pa.concat_tables([part.results for part in parts]).equals(whole.results)
            assert pa.concat_tables([part.rejects for part in parts]).equals(whole.rejects)
        assert len(read(shard.part(0, 0)).results) == 0


def test_rows_of_a_shard_have_an_id_and_a_source_without_being_parsed(folder):
    rows = {
        source_of(shard, i): material_id_of(shard, i)
        for shard in plan(folder, 3)
        for i in range(len(shard))
        if not shard.files[0].endswith(".parquet")
    }
    assert rows[f"{folder}/deep/m4.vasp"] == "m4"
    assert rows[f"{folder}/archive.tar"] == "archive"
    (piece,) = plan(folder / "table.parquet")
    assert (material_id_of(piece, 2), source_of(piece, 2)) == ("t2", f"{folder}/table.parquet, row 2")


def test_rows_have_the_columns_of_an_ingestion_with_the_sites_of_the_primitive_cell(folder):
    for shard in plan(folder):
        table = read(shard).results
        check_schema(table.schema, "table")
        names = [name for name in INGESTED_SCHEMA.names if name != "duplicate_of"]
        assert table.schema.names[: len(names)] == names
        assert table.schema.field("nsites_primitive").type == pa.int32()
        crystals = [row for row in read_crystals(table) if isinstance(row, Crystal)]
        assert table["nsites_primitive"].to_pylist() == [primitive_nsites(crystal) for crystal in crystals]


def test_columns_of_the_table_are_known_before_anything_is_read(folder):
    schema = ingested_schema(list_sources([str(folder)]).sources)
    assert schema.names == [*INGESTED_SCHEMA.names, "mass", "gap"]
    assert schema.field("mass").type == pa.float64()


def test_each_file_of_an_archive_has_the_time_of_a_shard(folder, monkeypatch):
    started = []
    monkeypatch.setattr(signal, "getitimer", lambda which: (5.0, 0.0))
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: started.append(seconds))
    read(plan(folder / "archive.tar")[0])
    assert started == [60]
    monkeypatch.setattr(signal, "getitimer", lambda which: (0.0, 0.0))
    read(plan(folder / "archive.tar")[0])
    assert started == [60], "a process without a limit gets none"


def test_nothing_to_read_is_one_empty_shard():
    (shard,) = plan_shards([], 10)
    assert len(shard) == 0
    table, rejects = read(shard)
    assert (len(table), len(rejects)) == (0, 0)


def test_code_is_loaded_before_the_first_file(monkeypatch):
    """Loading compiled loops takes a second, which may be most of the time limit of a single file."""
    radii = []
    loop = neighbor_loops.pairs_in_cell
    monkeypatch.setattr(neighbor_loops, "pairs_in_cell", lambda *search: radii.append(search[0]) or loop(*search))
    SourceReader(ReadingConfig(), 60.0)
    assert radii
