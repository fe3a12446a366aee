"""The catalog of a run: its views, its read-only connection, and the errors of queries."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import QueryError, RunError
from mat2spec.query.catalog import create_catalog, run_query
from mat2spec.storage.location import locate
from mat2spec.storage.run_directory import CATALOG, RunDirectory

FLOAT32 = 1e-5
"""Spectra are stored in single precision; DuckDB adds in double."""


def column(run: Path, sql: str) -> np.ndarray:
    """First column of an answer."""
    return run_query(run, sql).columns[0].to_numpy()


def test_views_hold_every_row(dft_run):
    counts = run_query(dft_run, "SELECT count(*) AS n, count(DISTINCT material_id) AS ids FROM predictions")
    assert counts.to_pylist() == [{"n": 1522, "ids": 1522}]
    assert column(dft_run, "SELECT count(*) FROM rejects") == [3]


def test_axis_is_the_grid(dft_run):
    np.testing.assert_array_equal(column(dft_run, "SELECT unnest(axis())"), PHDOS_GRID.points)


@pytest.mark.parametrize("frequency", [0, 9.99, 10, 29.9, 30, 500, 985, 990, 1000])
def test_dos_at_is_the_density_of_the_bin_that_holds_the_frequency(dft_run, rows, frequency):
    edges = np.array(PHDOS_GRID.edges)
    bin_ = min(int(np.searchsorted(edges, frequency, side="right")) - 1, 50)
    answer = run_query(dft_run, f"SELECT material_id, dos_at(spectrum, {frequency}) AS density FROM predictions")
    assert {row["material_id"]: row["density"] for row in answer.to_pylist()} == {
        row["material_id"]: row["spectrum"][bin_] for row in rows
    }


@pytest.mark.parametrize("frequency", [-0.1, 1000.1, "NULL", "NULL::DOUBLE"])
def test_dos_at_is_null_outside_the_grid(dft_run, frequency):
    assert column(dft_run, f"SELECT count(dos_at(spectrum, {frequency})) FROM predictions") == [0]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1000), (-50, 2000), (400, 500), (403.5, 404.5), (395, 455), (500, 500), (990, 1000)]
)
def test_dos_integral_is_the_area_of_the_bins_between_two_frequencies(dft_run, rows, low, high):
    edges = np.array(PHDOS_GRID.edges)
    widths = np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
    results = run_query(
        dft_run, f"SELECT material_id, dos_integral(spectrum, {low}, {high}) AS states FROM predictions"
    ).to_pylist()
    expected = {row["material_id"]: np.array(row["spectrum"]) @ widths for row in rows}
    for row in results:
        assert row["states"] == pytest.approx(expected[row["material_id"]], rel=FLOAT32, abs=FLOAT32)


def test_dos_integral_over_the_whole_grid_counts_three_modes(dft_run):
    np.testing.assert_allclose(
        column(dft_run, "SELECT dos_integral(spectrum, 0, 1000) FROM predictions"), 3, rtol=FLOAT32
    )


def test_dos_integral_over_nothing_is_nothing(dft_run):
    np.testing.assert_array_equal(column(dft_run, "SELECT dos_integral(spectrum, 500, 400) FROM predictions"), 0)


ODD_NAME = "it's a run, [1-3] *?{x} 50% é"


def query_in_shell(run: Path, sql: str) -> str:
    """Answer of the catalog that is on disk, opened with the run as current directory, as the duckdb shell does."""
    code = f"import duckdb; print(duckdb.connect('{CATALOG}', read_only=True).sql({sql!r}).fetchall())"
    shell = subprocess.run([sys.executable, "-c", code], cwd=run, capture_output=True, text=True, check=True)
    return shell.stdout.strip()


@pytest.mark.parametrize("name", ["moved", ODD_NAME])
def test_run_can_be_queried_wherever_it_is_moved(dft_run, tmp_path, monkeypatch, name):
    moved = Path(shutil.copytree(dft_run, tmp_path / "elsewhere" / name))
    monkeypatch.chdir(tmp_path)
    assert column(moved, "SELECT count(*) FROM predictions") == [1522]
    (moved / "predictions" / "part-000000.parquet").unlink()
    assert column(moved, "SELECT count(*) FROM predictions") == [922], "the copy must not read the original"
    assert query_in_shell(moved, "SELECT count(*), count(dos_at(spectrum, 20)) FROM predictions") == "[(922, 922)]"


def test_catalog_is_created_in_a_folder_of_any_name_from_any_directory(dft_run, edos_run, tmp_path, monkeypatch):
    """The current directory is another run, whose files must not be taken for those of the run."""
    run, temporary = tmp_path / ODD_NAME, tmp_path / "it's temporary [1-3] *{x} é"
    shutil.copytree(dft_run, run)
    (run / CATALOG).unlink()
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.chdir(edos_run)
    create_catalog(run, PHDOS_GRID)
    assert not list(temporary.iterdir())
    assert query_in_shell(run, "SELECT count(mean_frequency), len(axis()) FROM predictions") == "[(1522, 51)]"
    assert column(run, "SELECT count(mean_frequency) FROM predictions") == [1522]


@pytest.mark.parametrize("name", ["run", "it's a run, [1-3] {x} é"])
def test_run_in_an_object_store_has_the_same_catalog(dft_run, name):
    store = fsspec.filesystem("memory")
    store.put(str(dft_run), f"/{name}", recursive=True)
    run = locate(f"memory://{name}")
    create_catalog(run, PHDOS_GRID)
    assert column(run, "SELECT count(dos_at(spectrum, 20)) FROM predictions") == [1522]
    with pytest.raises(QueryError):
        run_query(run, "DROP VIEW predictions")


def test_two_threads_can_query_two_runs_at_once(dft_run, edos_run):
    """Neither the current directory nor a setting of DuckDB is shared by the two."""
    directory = Path.cwd()
    runs = {dft_run: 1522, edos_run: 471}
    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            counts = threads.map(lambda run: column(run, "SELECT count(*) FROM predictions").item(), runs)
            assert list(counts) == list(runs.values())
    assert Path.cwd() == directory


def test_query_changes_no_file_and_cannot(dft_run):
    before = {path: path.read_bytes() for path in dft_run.rglob("*") if path.is_file()}
    column(dft_run, "SELECT count(*) FROM predictions")
    for sql in ("CREATE TABLE mine AS SELECT 1 AS one", "DROP VIEW predictions", "INSERT INTO rejects VALUES (1)"):
        with pytest.raises(QueryError):
            run_query(dft_run, sql)
    assert {path: path.read_bytes() for path in dft_run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "SELECT nosuch FROM predictions", "SELECT * FROM nosuch", "SELECT 1/'a'", "SELECT 'x"]
)
def test_error_in_sql_is_one_line(dft_run, sql):
    with pytest.raises(QueryError) as caught:
        run_query(dft_run, sql)
    assert "\n" not in str(caught.value)


def test_empty_query_has_no_rows(dft_run):
    assert len(run_query(dft_run, "")) == 0


def test_unknown_named_query_lists_those_of_this_kind_of_run(dft_run, edos_run):
    of_phonons, of_electrons = "stiff_oxides", "gapped_metals"
    for run, expected, unexpected in ((dft_run, of_phonons, of_electrons), (edos_run, of_electrons, of_phonons)):
        with pytest.raises(QueryError, match="@stiff;") as caught:
            run_query(run, "@stiff")
        names = set(re.findall(r"@(\w+)", str(caught.value)))
        assert {expected, "reject_reasons", "verified", "verification"} <= names
        assert unexpected not in names


@pytest.mark.parametrize(("name", "needed"), [("gapped_metals", "edos"), ("cold_lattices", "phdos")])
def test_named_query_for_another_kind_of_spectra_is_refused_in_one_line(dft_run, edos_run, name, needed):
    with pytest.raises(QueryError, match=f"@{name} needs {needed}") as caught:
        run_query(dft_run if needed == "edos" else edos_run, f"@{name}")
    assert "\n" not in str(caught.value)
    assert "@reject_reasons" in str(caught.value)
    assert str(caught.value).count(f"@{name}") == 1, "a query that does not apply is not offered"


def test_folder_that_is_no_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match=str(path)):
            run_query(path, "SELECT 1")


def test_unfinished_run_says_so(tmp_path):
    RunDirectory(tmp_path / "run").claim({}, {})
    with pytest.raises(RunError, match=CATALOG):
        run_query(tmp_path / "run", "SELECT 1")
