"""The glossary describes the columns and macros that runs have, and no others."""

import pyarrow.parquet as pq
import pytest

from mat2spec.query.catalog import run_query
from mat2spec.query.glossary import COLUMNS, MACROS, REJECT_COLUMNS
from mat2spec.storage import rejects


@pytest.fixture
def runs(dft_run, edos_run) -> dict:
    return {"phdos": dft_run, "edos": edos_run}


@pytest.mark.parametrize("kind", ["phdos", "edos"])
def test_every_macro_of_a_run_is_described(runs, kind):
    sql = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'macro' AND NOT internal"
    created = {name for name in run_query(runs[kind], sql)["function_name"].to_pylist() if not name.startswith("_")}
    assert created == {name for name, macro in MACROS.items() if macro.kind in ("any", kind)}


def test_signature_of_every_macro_has_its_parameters_and_their_defaults(edos_run):
    sql = """SELECT function_name AS name, parameters FROM duckdb_functions()
             WHERE function_type = 'macro' AND NOT internal AND function_name NOT LIKE '\\_%' ESCAPE '\\'"""
    for row in run_query(edos_run, sql).to_pylist():
        inside = MACROS[row["name"]].signature.removeprefix(f"{row['name']}(").removesuffix(")")
        assert [part.split(" := ")[0] for part in inside.split(", ") if part] == row["parameters"], row["name"]


@pytest.mark.parametrize("kind", ["phdos", "edos"])
def test_every_column_of_a_run_is_described(runs, kind, request):
    described = [name for name, column in COLUMNS.items() if column.kind in ("any", kind)]
    table = pq.read_table(next((runs[kind] / "predictions").iterdir()))
    if kind == "phdos":  # the input's other columns follow
        assert table.column_names[: len(described)] == list(request.getfixturevalue("contract")) == described
    else:
        assert set(table.column_names) == set(described)


def test_every_column_of_rejects_is_described():
    assert list(REJECT_COLUMNS) == rejects.REJECT_COLUMNS.names
