from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mat2spec.data.ingest.duplicates import find_duplicates
from mat2spec.data.materials.schema import materials_table
from mat2spec.structure.crystal import Crystal


def crystal(material_id: str, content: int) -> Crystal:
    return Crystal(material_id, np.array([14], np.uint8), (3.0 + content) * np.eye(3), np.zeros((1, 3)))


@pytest.fixture
def tables(tmp_path) -> dict[Path, pa.Table]:
    """Ids and contents: b occurs three times, its second content is that of e; a, d and f have the same content."""
    rows = ([("a", 0), ("b", 1)], [("b", 2), ("d", 0)], [], [("e", 2), ("f", 0), ("b", 1)])
    tables = {}
    for index, rows_of_file in enumerate(rows):
        path = tmp_path / f"part-{index}.parquet"
        sources = pa.array([path.name] * len(rows_of_file), pa.string())
        tables[path] = materials_table([crystal(*row) for row in rows_of_file], {"source": sources})
        pq.write_table(tables[path], path)
    return tables


def test_first_row_of_an_id_remains_and_the_others_are_rejects(tables):
    duplicates = find_duplicates(list(map(str, tables)))
    ids, rejects = [], []
    for position, table in enumerate(tables.values()):
        marked, rejected = duplicates.split(position, table)
        ids += marked["material_id"].to_pylist()
        rejects += [(row["material_id"], row["source"]) for row in rejected]
    assert ids == ["a", "b", "d", "e", "f"]
    assert rejects == [("b", "part-1.parquet"), ("b", "part-3.parquet")]


def test_duplicate_of_is_the_first_remaining_row_with_the_same_content(tables):
    duplicates = find_duplicates(list(map(str, tables)))
    marked = pa.concat_tables([duplicates.split(position, table)[0] for position, table in enumerate(tables.values())])
    originals = dict(zip(marked["material_id"].to_pylist(), marked["duplicate_of"].to_pylist(), strict=True))
    assert originals == {"a": None, "b": None, "d": "a", "e": None, "f": "a"}, (
        "the second b, with the content of e, is a reject"
    )
    assert duplicates.counts() == {"repeated_ids": 2, "duplicates": 2}


def test_table_without_duplicates_is_unchanged(tmp_path):
    path = tmp_path / "part.parquet"
    table = materials_table([crystal("a", 0), crystal("b", 1)], {"source": ["x", "y"]})
    pq.write_table(table, path)
    marked, rejects = find_duplicates([str(path)]).split(0, table)
    assert rejects == []
    assert marked.drop_columns(["duplicate_of"]).equals(table)
    assert marked["duplicate_of"].null_count == 2
