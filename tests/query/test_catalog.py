import shutil
from pathlib import Path

import numpy as np
import pytest

from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.errors import QueryError, RunError
from mat2spec.query.catalog import ask
from mat2spec.storage.run_directory import CATALOG, RunDirectory

FLOAT32 = 1e-5
"""Spectra are stored in single precision; DuckDB adds in double."""


def column(run: Path, sql: str) -> np.ndarray:
    """First column of an answer."""
    return ask(run, sql).columns[0].to_numpy()


def test_views_hold_every_row(dft_run):
    assert [*ask(dft_run, "SELECT count(*), count(DISTINCT material_id) FROM predictions").to_pylist()[0].values()] == [
        1522,
        1522,
    ]
    assert column(dft_run, "SELECT count(*) FROM rejects") == [3]


def test_axis_is_the_grid(dft_run):
    np.testing.assert_array_equal(column(dft_run, "SELECT unnest(axis())"), PHDOS_GRID.points)


@pytest.mark.parametrize("frequency", [0, 9.99, 10, 29.9, 30, 500, 985, 990, 1000])
def test_dos_at_is_the_density_of_the_bin_that_holds_the_frequency(dft_run, rows, frequency):
    edges = np.array(PHDOS_GRID.edges)
    bin_ = min(int(np.searchsorted(edges, frequency, side="right")) - 1, 50)
    found = ask(dft_run, f"SELECT material_id, dos_at(spectrum, {frequency}) AS density FROM predictions").to_pylist()
    assert {row["material_id"]: row["density"] for row in found} == {
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
    found = ask(
        dft_run, f"SELECT material_id, dos_integral(spectrum, {low}, {high}) AS states FROM predictions"
    ).to_pylist()
    expected = {row["material_id"]: np.array(row["spectrum"]) @ widths for row in rows}
    for row in found:
        assert row["states"] == pytest.approx(expected[row["material_id"]], rel=FLOAT32, abs=FLOAT32)


def test_dos_integral_over_the_whole_grid_counts_three_modes(dft_run):
    np.testing.assert_allclose(
        column(dft_run, "SELECT dos_integral(spectrum, 0, 1000) FROM predictions"), 3, rtol=FLOAT32
    )


def test_dos_integral_over_nothing_is_nothing(dft_run):
    np.testing.assert_array_equal(column(dft_run, "SELECT dos_integral(spectrum, 500, 400) FROM predictions"), 0)


def test_run_answers_wherever_it_is_moved(dft_run, tmp_path, monkeypatch):
    moved = Path(shutil.copytree(dft_run, tmp_path / "elsewhere" / "it's here"))
    monkeypatch.chdir(tmp_path)
    assert column(moved, "SELECT count(*) FROM predictions") == [1522]
    assert Path.cwd() == tmp_path, "asking must not move the process"
    (moved / "predictions" / "part-000000.parquet").unlink()
    assert column(moved, "SELECT count(*) FROM predictions") == [922], "the copy must not look into the original"


def test_asking_changes_no_file_and_cannot(dft_run):
    before = {path: path.read_bytes() for path in dft_run.rglob("*") if path.is_file()}
    column(dft_run, "SELECT count(*) FROM predictions")
    for sql in ("CREATE TABLE mine AS SELECT 1 AS one", "DROP VIEW predictions", "INSERT INTO rejects VALUES (1)"):
        with pytest.raises(QueryError):
            ask(dft_run, sql)
    assert {path: path.read_bytes() for path in dft_run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "SELECT nosuch FROM predictions", "SELECT * FROM nosuch", "SELECT 1/'a'", "SELECT 'x"]
)
def test_sql_that_fails_is_one_line(dft_run, sql):
    with pytest.raises(QueryError) as caught:
        ask(dft_run, sql)
    assert "\n" not in str(caught.value)


def test_no_question_gives_no_rows(dft_run):
    assert len(ask(dft_run, "")) == 0


def test_unknown_question_lists_those_there_are(dft_run):
    with pytest.raises(QueryError, match=r"no question @stiff; there are @stiff_oxides, @cold_lattices, "):
        ask(dft_run, "@stiff")


def test_unknown_question_lists_those_that_this_run_can_answer(edos_run):
    with pytest.raises(
        QueryError, match=r"no question @stiff; there are @gapped_metals, .*@reject_reasons, @verified, @verification$"
    ) as caught:
        ask(edos_run, "@stiff")
    assert "@stiff_oxides" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("gapped_metals", "edos runs, and this is one of phdos"),
        ("cold_lattices", "phdos runs, and this is one of edos"),
    ],
)
def test_question_to_runs_of_another_grid_is_refused_in_one_line(dft_run, edos_run, name, kinds):
    with pytest.raises(
        QueryError, match=f"@{name} is a question to {kinds}; there are @.*, @reject_reasons, @verified, @verification$"
    ) as caught:
        ask(dft_run if kinds.endswith("phdos") else edos_run, f"@{name}")
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(f"@{name}") == 1, "what does not fit is not offered"


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run here: run\.json is missing"):
        ask(tmp_path, "SELECT 1")
    with pytest.raises(RunError, match="no run here"):
        ask(tmp_path / "none", "SELECT 1")


def test_unfinished_run_says_so(tmp_path):
    RunDirectory(tmp_path / "run").claim({}, {})
    with pytest.raises(RunError, match=f"not finished, so it has no {CATALOG}; run the same command again"):
        ask(tmp_path / "run", "SELECT 1")
