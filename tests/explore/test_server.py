"""The server of the page without a browser: token, files to save, figures, ports, and the command."""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.explore.figures import COLORS, scatter_figure, spectra_figure
from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Selection
from mat2spec.explore.server import make_app
from mat2spec.explore.spectra import MaterialSpectrum, read_spectra
from mat2spec.ports import bind
from mat2spec.query.catalog import run_query

TOKEN = "the-token-of-the-tests"

PROGRAM = [sys.executable, "-c", "from mat2spec.cli.main import main; main()", "explore"]


@pytest.fixture(scope="module")
def stranger(reader):
    return make_app(reader, TOKEN).test_client()


@pytest.fixture(scope="module")
def client(reader):
    client = make_app(reader, TOKEN).test_client()
    assert client.get(f"/?token={TOKEN}").status_code == 302
    return client


def export(client, form: str, selection: Selection):
    return client.get(f"/export/{form}", query_string={"selection": selection.model_dump_json()}, buffered=True)


@pytest.mark.parametrize(
    "path", ["/", "/?token=wrong", "/_dash-layout", "/_dash-dependencies", "/export/csv", "/assets/page.css"]
)
def test_who_does_not_know_the_token_gets_nothing(stranger, path):
    answer = stranger.get(path)
    assert (answer.status_code, answer.text.count("\n")) == (403, 1)
    assert "with its token" in answer.text


def test_token_becomes_a_cookie_that_no_other_site_sends(reader):
    answer = make_app(reader, TOKEN).test_client().get(f"/?token={TOKEN}")
    assert answer.headers["Location"] == "/", "the token does not stay in the address"
    assert {"HttpOnly", "SameSite=Strict"} <= set(re.split("; *", answer.headers["Set-Cookie"]))


def test_page_asks_no_other_server_for_anything(client):
    page = client.get("/").text
    assert re.findall(r'(?:src|href)="(?!/)', page) == []


SOME = Selection(elements=("O",), ranges={"nsites": (None, 6.0)})


def test_csv_and_parquet_hold_the_selected_rows_with_all_columns(client, reader):
    expected = reader.query(SOME.statement(reader.record))
    assert 0 < len(expected) < 240
    assert pq.read_table(io.BytesIO(export(client, "parquet", SOME).data)) == expected
    csv = pyarrow.csv.read_csv(io.BytesIO(export(client, "csv", SOME).data))
    assert csv.column_names == expected.column_names
    assert csv["material_id"].to_pylist() == expected["material_id"].to_pylist()
    assert json.loads(csv["spectrum"][0].as_py()) == pytest.approx(expected["spectrum"][0].as_py(), rel=1e-6)


def test_cif_archive_holds_a_file_for_each_crystal(client, reader):
    ids = reader.query(SOME.statement(reader.record))["material_id"].to_pylist()
    with zipfile.ZipFile(io.BytesIO(export(client, "cif", SOME).data)) as archive:
        assert sorted(archive.namelist()) == sorted(f"{name}.cif" for name in ids)
        assert b"_cell_length_a" in archive.read(archive.namelist()[0])


def test_saved_sql_gives_the_same_rows_on_the_command_line(client, reader, small_run):
    sql = export(client, "sql", SOME).text
    assert run_query(small_run, sql) == reader.query(SOME.statement(reader.record))


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/export/exe", 404, "choose from csv, parquet, cif, sql"),
        ("/export/csv?selection=nonsense", 400, "Expecting value"),
        ("/export/csv?selection={%22text%22:%22nsites+<%22}", 400, "syntax error"),
        ("/export/csv?selection={%22text%22:%22COPY+predictions+TO+'x'%22}", 400, "only one SELECT"),
        ("/export/cif?selection={%22text%22:%22SELECT+1+AS+one%22}", 400, "material_id"),
        ("/export/cif?selection={%22ids%22:[%22nowhere%22]}", 400, "none of the 0 selected"),
    ],
)
def test_file_that_cannot_be_made_is_one_line(client, path, status, reason):
    answer = client.get(path)
    assert (answer.status_code, answer.text.count("\n")) == (status, 1)
    assert reason in answer.text


def material(**parts) -> MaterialSpectrum:
    whole = {
        "material_id": "mp-1",
        "formula": "Si",
        "predicted": np.ones(128),
        "spread": None,
        "gaps": (),
        "computed": None,
    }
    return MaterialSpectrum(**whole | parts)


def test_figure_shows_prediction_error_computed_spectrum_and_gap():
    figure = spectra_figure(
        [material(spread=2.0, gaps=((-2.0, -0.5),), computed=np.zeros(128))], EDOS_GRID, window=(0.5, 1.0)
    )
    band, predicted, computed = figure.data
    assert (min(band.y), max(band.y)) == (0, 3), "one error above, and no density below zero"
    assert (predicted.name, predicted.line.dash, computed.line.dash) == ("Si · mp-1", None, "dash")
    assert predicted.line.color == computed.line.color
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(-2, -0.5), (0.5, 1)]
    assert "states/eV" in figure.layout.yaxis.title.text


def test_prediction_without_an_ensemble_has_no_band():
    assert len(spectra_figure([material(predicted=np.ones(51))], PHDOS_GRID).data) == 1


def test_materials_have_colors_of_their_own():
    figure = spectra_figure([material(material_id=str(i)) for i in range(len(COLORS))], EDOS_GRID)
    assert len({line.line.color for line in figure.data}) == len(COLORS)


def test_scatter_plot_has_the_rows_and_their_names(reader):
    rows = reader.query("SELECT nsites AS x, mean_frequency AS y, formula_pretty AS label FROM predictions")
    figure = scatter_figure(rows, "nsites", "mean_frequency")
    assert list(figure.data[0].x) == rows["x"].to_pylist()
    assert (figure.layout.xaxis.title.text, figure.layout.dragmode) == ("nsites", "select")


def test_spectra_of_no_material_are_an_empty_figure(reader):
    assert spectra_figure(read_spectra(reader, []), reader.grid).data == ()


def explore(*words: object, **variables: str) -> subprocess.Popen:
    command = [*PROGRAM, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables or None)


def test_command_tells_address_and_port_and_ends_with_the_interrupt(small_run):
    with bind(8500) as taken:
        port = taken.getsockname()[1]
        with explore(small_run, "--port", port) as process:
            lines = [process.stdout.readline() for _ in range(2)]
            process.send_signal(2)
            _, err = process.communicate(timeout=60)
    assert lines[0] == f"port {port} is in use, taking {port + 1}\n"
    assert re.search(rf"http://127\.0\.0\.1:{port + 1}/\?token=[\w-]{{32}} ", lines[1])
    assert (process.returncode, err) == (0, "")


def materials_only(small_run: Path, folder: Path) -> Path:
    run = shutil.copytree(small_run, folder / "ingested")
    record = json.loads((run / "run.json").read_text())
    del record["grid"]
    (run / "run.json").write_text(json.dumps(record))
    return run


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda run, folder: folder / "nowhere", "no run here: run.json is missing"),
        (lambda run, folder: folder, "no run here: run.json is missing"),
        (lambda run, folder: run / "run.json", "cannot be read"),
        (materials_only, "holds no spectra, only materials"),
    ],
    ids=["missing", "no run", "file", "ingestion"],
)
def test_directory_that_is_no_screening_is_one_line_and_exit_two(small_run, tmp_path, capfd, make, line):
    from mat2spec.cli.main import run

    assert run(["explore", str(make(small_run, tmp_path))]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert line in err


@pytest.mark.filterwarnings("default")  # of the packages that speak to the store
@pytest.mark.usefixtures("no_store_of_before")
def test_store_without_credentials_is_one_line_and_exit_two(monkeypatch, capfd, tmp_path):
    from mat2spec.cli.main import run

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert run(["explore", "s3://lake-without-keys/run"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert "s3://lake-without-keys/run" in err
    assert "credentials" in err


def test_unfinished_run_opens_and_says_so(unfinished_run):
    client = make_app(RunReader(unfinished_run), TOKEN).test_client()
    client.get(f"/?token={TOKEN}")
    assert "unfinished: rows are still being added" in client.get("/_dash-layout").text
