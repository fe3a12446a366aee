"""Downloads from a fake Materials Project: candidates and labels of real crystals, and failures."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import materials_project_server as materials_project
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from emmet.core.arrow import arrowize
from emmet.core.band_theory import ElectronicDos
from emmet.core.mpid import AlphaID
from emmet.core.phonon import PhononDOS
from emmet.core.summary import HasProps, SummaryDoc
from materials_project_server import KEY, Server
from mp_api.client.core.settings import MAPI_CLIENT_SETTINGS
from pymatgen.core import Lattice, Structure
from pymatgen.phonon.dos import PhononDos
from running import ROOT, environment, wait_until

from mat2spec.config import DataConfig, GraphConfig
from mat2spec.data.labels.dataset import read_labels
from mat2spec.data.materials_project import client as door
from mat2spec.data.materials_project import retry
from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal

THZ = 0.0299792458
"""One cm⁻¹."""

ELECTRONIC = 14
"""Of the bundled crystals with electronic spectra, so many are served."""

LONELY = Structure(Lattice.cubic(20.0), ["I"], [[0.0, 0.0, 0.0]])

Row = dict[str, Any]


def structure_of(row: Row) -> Structure:
    return Crystal.from_row(row).to_structure()


def summary(row: Row, properties: tuple[str, ...], structure: Structure | None = None, **known: Any) -> Row:
    """A document as emmet makes it: with ids in letters, as since 2025."""
    metadata = {"license": "BY-C", "batch_id": known.pop("batch_id", None)}
    fields = {
        "energy_above_hull": 0.01,
        "formation_energy_per_atom": -1.0,
        "ordering": "NM",
        "deprecated": False,
        "theoretical": False,
    }
    document = SummaryDoc.from_structure(
        structure or structure_of(row),
        material_id=row["material_id"],
        last_updated="2025-09-25T00:00:00Z",
        has_props={name: name.value in properties for name in HasProps},
        builder_meta=metadata,
        **fields | known,
    )
    return json.loads(document.model_dump_json())


def electronic_rows() -> list[Row]:
    """Crystals whose spectra were computed, in insulators and metals."""
    table = pq.read_table(ROOT / "mat2spec" / "data" / "bundled" / "edos_gpaw.parquet").to_pylist()
    metals, insulators = ([row for row in table if row["is_metal"] == kind] for kind in (True, False))
    return metals[: ELECTRONIC // 2] + insulators[: ELECTRONIC // 2]


def edges(row: Row) -> Row:
    bands = {"vbm": None, "cbm": None} if row["is_metal"] else {"vbm": row["vbm"], "cbm": row["cbm"]}
    return {"band_gap": row["band_gap"], "is_metal": row["is_metal"], "efermi": row["efermi"], **bands}


def electronic_document(row: Row, index: int) -> Row:
    """The summary of one; every third in a cell twice as large as that of its spectrum."""
    structure = structure_of(row).make_supercell([1, 1, 2]) if index % 3 == 0 else None
    return summary(
        row, ("dos", "electronic_structure"), structure, dos={"task_id": f"mp-{5_000_000 + index}"}, **edges(row)
    )


def electronic_dos(row: Row, index: int) -> Row:
    """A curve as two equal spin channels, on VASP's zero."""
    half = (np.array(row["densities"]) / 2).tolist()
    dos = ElectronicDos(
        identifier=stored(5_000_000 + index),
        run_type="GGA",
        structure=structure_of(row),
        efermi=row["efermi"],
        energies=row["energies"],
        spin_up_densities=half,
        spin_down_densities=half,
    )
    return dos.model_dump(mode="json")


def stored(number: int) -> str:
    return str(AlphaID(number, padlen=8))


def new(number: int) -> str:
    """An id that was never given as a number."""
    return f"mp-{stored(number)}"


def phonon_document(row: Row, index: int) -> Row:
    return summary(row, ("phonon",), phonon_IDs={"dfpt": [f"mp-{6_000_000 + index}"]}, band_gap=1.0)


def phonon_curve(row: Row, shift: float = 0.0) -> Row:
    """The bundled label, as a curve in THz."""
    return {"frequencies": ((PHDOS_GRID.points - shift) * THZ).tolist(), "densities": row["phdos"]}


@pytest.fixture(scope="module")
def electronic() -> list[Row]:
    return electronic_rows()


@pytest.fixture(scope="module")
def phonons(small_table, electronic) -> list[Row]:
    others = {row["material_id"] for row in electronic}
    return [row for row in small_table.to_pylist() if row["material_id"] not in others][:6]


@pytest.fixture(scope="module")
def documents(electronic, phonons) -> list[Row]:
    """All summaries of the database: good ones, those without a label, and those that no query may return."""
    good = [electronic_document(row, index) for index, row in enumerate(electronic)]
    good += [phonon_document(row, index) for index, row in enumerate(phonons)]
    salt, metal = electronic[-1], electronic[0]
    with_dos = {"properties": ("dos",), **edges(salt)}
    shared = {"vacancy": structure_of(salt)}
    shared["vacancy"].replace(0, {shared["vacancy"][0].specie: 0.5})
    bad = [
        summary(salt | {"material_id": "mp-7000001"}, dos={"task_id": "mp-5999999"}, **with_dos),
        summary(salt | {"material_id": "mp-7000002"}, dos=None, **with_dos),
        summary(salt | {"material_id": "mp-7000003"}, dos={"task_id": "mp-5000100"}, **with_dos),
        summary(salt | {"material_id": "mp-7000004"}, dos={"task_id": "mp-5000000"}, **with_dos),
        summary(metal | {"material_id": "mp-7000005"}, ("dos",), dos={"task_id": "mp-5000013"}, **edges(metal)),
        summary(
            salt | {"material_id": "mp-7000006"},
            ("dos",),
            shared["vacancy"],
            dos={"task_id": "mp-5000013"},
            **edges(salt),
        ),
        summary(salt | {"material_id": "mp-7000007"}, dos={"task_id": "mp-5000013"}, **with_dos) | {"band_gap": "wide"},
        summary(salt | {"material_id": "mp-7000008"}, dos={"task_id": "mp-5000013"}, **with_dos)
        | {"structure": {"lattice": {}}},
        phonon_document(phonons[0] | {"material_id": "mp-7000009"}, 100),
        summary(salt | {"material_id": "mp-7000010"}, structure=LONELY, dos={"task_id": "mp-5000101"}, **with_dos),
    ]
    hidden = [
        summary(salt | {"material_id": "mp-8000001"}, dos={"task_id": "mp-5000013"}, ordering="FM", **with_dos),
        summary(salt | {"material_id": "mp-8000002"}, dos={"task_id": "mp-5000013"}, deprecated=True, **with_dos),
        summary(
            salt | {"material_id": "mp-8000003"},
            dos={"task_id": "mp-5000013"},
            batch_id="gnome_r2scan_statics",
            **with_dos,
        ),
    ]
    return good + bad + hidden


@pytest.fixture(scope="module")
def store(electronic, phonons) -> Iterator[str]:
    """The tables of spectra."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rows = [electronic_dos(row, index) for index, row in enumerate(electronic)]
    rows.append(rows[0] | {"identifier": stored(5_000_100), "efermi": None})
    rows.append(electronic_dos(electronic[-1], 101) | {"structure": None})
    fields = [field for field in arrowize(ElectronicDos) if field.name != "projected_densities"]
    curves = [
        {"identifier": stored(6_000_000 + i), "phonon_method": "dfpt", "dos": phonon_curve(row)}
        for i, row in enumerate(phonons)
    ]
    curves.append(
        {"identifier": stored(6_000_100), "phonon_method": "dfpt", "dos": phonon_curve(phonons[0], shift=300.0)}
    )
    of_phonons = pa.schema({"identifier": pa.string(), "phonon_method": pa.string(), "dos": arrowize(PhononDOS)})
    with materials_project.object_store(port) as url:
        materials_project.open_bucket(url)
        materials_project.write_table(url, "core/electronic-structure/total-dos/", rows, pa.schema(fields), "run_type")
        materials_project.write_table(url, "phonon/electronic-structure/dos/", curves, of_phonons, "phonon_method")
        yield url


@pytest.fixture
def server(documents) -> Iterator[Server]:
    with materials_project.serve([dict(document) for document in documents]) as running:
        yield running


@pytest.fixture
def fetch(job, server, tmp_path, monkeypatch) -> Callable[..., Any]:
    """Run the command with a good key, with short waits between retries; return its outcome."""
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(MAPI_CLIENT_SETTINGS, "BACKOFF_FACTOR", 0.0)
    fixed = ("--download.endpoint", server.url, "--download.requests-per-second", 25)

    def run(what: str, *options: object, seconds: float = 60.0) -> Any:
        outcome = job(
            "ingest", "mp", what, "--output", tmp_path / "mp", *fixed, "--download.retry-timeout", seconds, *options
        )
        assert KEY not in outcome.out + outcome.err
        if outcome.code:
            assert outcome.err.count("\n") == 1, outcome.err
            assert outcome.err.startswith("error: ")
        return outcome

    return run


@pytest.fixture
def spectra(store, monkeypatch) -> None:
    """Let the client find the local S3."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")


def read(output: Path, folder: str) -> list[Row]:
    return [row for file in sorted((output / folder).iterdir()) for row in pq.read_table(file).to_pylist()]


def record(output: Path) -> Row:
    return json.loads((output / "run.json").read_text())


def test_the_paper_s_query_gives_the_metals_and_no_other(fetch, electronic, tmp_path):
    outcome = fetch("candidates", "--query.preset", "paper", "--download.rows-per-shard", 3)
    assert outcome.code == 0, outcome.err
    rows = {row["material_id"]: row for row in read(tmp_path / "mp", "materials")}
    metals = {row["material_id"]: row for row in electronic if row["is_metal"]}
    assert rows.keys() == {*metals, new(7_000_005)}, (
        "ids are numbers as in the bundled tables, letters where none was given"
    )
    for name, row in metals.items():
        assert rows[name]["formula_pretty"] == row["formula_pretty"]
        assert (rows[name]["band_gap"], rows[name]["ordering"], rows[name]["energy_above_hull"]) == (0.0, "NM", 0.01)
        assert rows[name]["has_dos"]
        assert not rows[name]["has_phonon"]
        assert rows[name]["source"] == "Materials Project 2025.09.25"
    written = record(tmp_path / "mp")
    assert written["database_version"] == "2025.09.25"
    assert written["identity"]["query"]["energy_above_hull"] == [0.0, 0.5]
    assert written["counts"] == {"input": len(rows), "materials": len(rows), "rejects": 0}
    assert (tmp_path / "mp" / "catalog.duckdb").exists()
    assert f"{len(rows)} materials of release 2025.09.25" in outcome.out


def test_candidates_without_a_spectrum_are_those_with_has_props_false(fetch, phonons, tmp_path):
    assert fetch("candidates", "--query.lacks", "dos").code == 0
    names = {row["material_id"] for row in read(tmp_path / "mp", "materials")}
    assert names == {*(row["material_id"] for row in phonons), new(7_000_009)}


@pytest.mark.usefixtures("spectra")
def test_electronic_labels_are_those_of_the_same_curves(fetch, electronic, tmp_path):
    outcome = fetch("edos", "--download.rows-per-shard", 8)
    assert outcome.code == 0, outcome.err
    rows = {row["material_id"]: row for row in read(tmp_path / "mp", "materials")}
    assert rows.keys() == {row["material_id"] for row in electronic}
    for row in electronic:
        found = rows[row["material_id"]]
        np.testing.assert_allclose(
            found["edos"], row["edos"], rtol=1e-4, atol=1e-4, err_msg="per primitive cell, whatever the summary's cell"
        )
        assert found["band_gap"] == pytest.approx(row["band_gap"], abs=1e-6)
        assert found["edos_edges"] == ("fermi" if row["is_metal"] else "bands")
    reasons = {row["material_id"]: (row["stage"], row["error"]) for row in read(tmp_path / "mp", "rejects")}
    expected = {
        7_000_001: ("dos", "open data"),
        7_000_002: ("dos", "no density of states"),
        7_000_003: ("label", "Fermi level"),
        7_000_004: ("label", "disagree"),
        7_000_005: ("label", "no gap"),
        7_000_006: ("summary", "disordered"),
        7_000_007: ("summary", "band_gap"),
        7_000_008: ("summary", "OPTIMADE"),
        7_000_010: ("label", "8 Å"),
    }
    assert {name: stage for name, (stage, _) in reasons.items()} == {
        new(n): stage for n, (stage, _) in expected.items()
    }
    for number, (_, text) in expected.items():
        assert text in reasons[new(number)][1]
    assert record(tmp_path / "mp")["missing"] == {"dos": 2, "label": 4, "summary": 3}
    data = DataConfig(table="", label="edos", fold=1)
    splits = read_labels(tmp_path / "mp" / "materials", data, GraphConfig(), EDOS_GRID)
    assert len(splits.everything) == len(electronic), "a training takes the directory as it is"


@pytest.mark.usefixtures("spectra")
def test_phonon_labels_are_what_pymatgen_smooths(fetch, phonons, tmp_path):
    assert fetch("phdos").code == 0
    rows = {row["material_id"]: row for row in read(tmp_path / "mp", "materials")}
    assert rows.keys() == {row["material_id"] for row in phonons}
    fine = np.arange(-100.0, 1100.0, 0.5)
    for row in phonons:
        curve = np.interp(fine, PHDOS_GRID.points, row["phdos"], left=0.0, right=0.0)
        smooth = np.interp(PHDOS_GRID.points, fine, PhononDos(fine, curve).get_smeared_densities(10.0))
        np.testing.assert_allclose(rows[row["material_id"]]["phdos"], smooth / smooth.max(), atol=0.01)
        assert max(rows[row["material_id"]]["phdos"]) == 1.0
    (unstable,) = read(tmp_path / "mp", "rejects")
    assert "below -15 cm⁻¹" in unstable["error"]


def test_materials_are_named_by_either_form_of_id(fetch, server, electronic, tmp_path):
    names = [row["material_id"] for row in electronic[:3]]
    letters = [f"mp-{AlphaID(int(name.removeprefix('mp-')), padlen=8)}" for name in names]
    (tmp_path / "ids.txt").write_text(
        "\n".join([names[0], letters[1], names[2], letters[2], "mp-999999", "mp-8000002", "mp-8000001"])
    )
    assert fetch("candidates", "--query.ids", tmp_path / "ids.txt", "--query.magnetic-ordering", "NM").code == 0
    assert [row["material_id"] for row in read(tmp_path / "mp", "materials")] == names, "each id once"
    reasons = {row["material_id"]: row["error"] for row in read(tmp_path / "mp", "rejects")}
    assert "withdrawn" in reasons["mp-999999"]
    assert "withdrawn" in reasons[new(8_000_002)]
    assert "FM, not NM" in reasons[new(8_000_001)]
    assert len(reasons) == 3


def test_faults_that_pass_cost_nothing(fetch, server, tmp_path):
    server.faults += [
        *[429] * 6,
        *[502] * 6,
        500,
        503,
        "cut",
        "half",
        "other",
    ]  # mp-api itself gives up after four 429 or 502
    assert fetch("candidates", "--query.preset", "paper").code == 0
    assert server.faults == []
    assert len(read(tmp_path / "mp", "materials")) == ELECTRONIC // 2 + 1
    assert read(tmp_path / "mp", "rejects") == []


@pytest.mark.parametrize(
    ("fault", "line"), [(429, "too many 429"), (500, "500: simulated failure"), ("half", "JSONDecodeError")]
)
def test_a_fault_that_stays_ends_in_a_line_and_what_was_fetched_stays(fetch, server, tmp_path, fault, line):
    server.faults += [fault] * 4 * 3
    outcome = fetch("candidates", "--query.preset", "paper", seconds=0)
    assert outcome.code == 1
    assert line in outcome.err
    assert "run the same command to resume" in outcome.err
    server.faults.clear()
    assert fetch("candidates", "--query.preset", "paper").code == 0


@pytest.mark.usefixtures("spectra")
def test_spectra_out_of_reach_end_in_a_line(fetch, electronic, tmp_path, monkeypatch, store):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    outcome = fetch("edos", seconds=0)
    assert outcome.code == 1
    assert "run the same command to resume" in outcome.err
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    assert fetch("edos").code == 0
    assert len(read(tmp_path / "mp", "materials")) == len(electronic)


def test_a_full_disk_ends_in_a_line_and_what_is_written_stays(fetch, tmp_path, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(RunDirectory, "commit", fails_after(1, RunDirectory.commit))
        outcome = fetch(
            "candidates", "--query.preset", "paper", "--download.rows-per-shard", 3, "--download.threads", 1
        )
    assert outcome.code == 1
    assert f"{tmp_path / 'mp'}: cannot be written (No space left on device); " in outcome.err
    assert len(list((tmp_path / "mp" / "staged" / "materials").glob("*.parquet"))) == 1
    assert fetch("candidates", "--query.preset", "paper", "--download.rows-per-shard", 3).code == 0


def fails_after(times: int, commit: Callable[..., None]) -> Callable[..., None]:
    """A disk that is full after some shards."""
    left = iter(range(times))

    def full(*arguments: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        commit(*arguments)

    return full


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("", "no API key; get one at https://materialsproject.org/api and set MP_API_KEY"),
        ("0123456789abcdef", "the API key has 16 characters, must be 32 letters and digits"),
        ("x" * 32, 'the API key is refused (403: {"message":"Invalid authentication credentials: (the key)"})'),
        ("expired", 'the API key is refused (401: {"message":"Your API key has expired"})'),
    ],
)
def test_a_bad_key_is_refused_before_anything_is_written(fetch, server, monkeypatch, tmp_path, key, line):
    monkeypatch.setattr(door, "SETTINGS", {})
    if key == "expired":
        server.faults.append("expired")
    else:
        monkeypatch.setenv("MP_API_KEY", key)
    outcome = fetch("candidates")
    assert outcome.code == 2
    assert line.replace(" ", "") in outcome.err.replace(" ", "")
    assert len(key) < 20 or key not in outcome.err
    assert not (tmp_path / "mp").exists()


def test_the_key_of_pymatgen_s_settings_serves_too(fetch, monkeypatch, tmp_path):
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setattr(door, "SETTINGS", {"PMG_MAPI_KEY": KEY})
    assert fetch("candidates", "--query.chemsys", "Si").code in (0, 2)


def test_the_key_is_nowhere_in_what_is_written(fetch, tmp_path):
    assert fetch("candidates", "--query.preset", "paper").code == 0
    for file in (tmp_path / "mp").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--query.band-gap", 2, 1), "band_gap: minimum 2 is greater than maximum 1"),
        (("--query.lacks", "dog"), "'dog' is not a property"),
        (("--query.has", "dos", "--query.lacks", "dos"), "cannot both have and lack dos"),
        (("--query.chemsys", "Xx-Yy"), "no material meets the conditions"),
        (("--query.ids", "nowhere.txt"), "nowhere.txt: the list of ids cannot be read"),
        (("--query.ids", "x.txt", "--query.preset", "paper"), "ids already selects materials"),
    ],
)
def test_an_impossible_wish_is_refused_before_anything_is_written(fetch, tmp_path, options, line):
    outcome = fetch("candidates", *options)
    assert (outcome.code, line in outcome.err) == (2, True), outcome.err
    assert not (tmp_path / "mp").exists()


def test_a_heartbeat_that_is_kept_from_us_does_not_stop_a_download(fetch, server, tmp_path):
    server.heartbeat = 403
    assert fetch("candidates", "--query.preset", "paper").code == 0
    assert record(tmp_path / "mp")["database_version"] == "unknown"


def test_two_releases_are_not_mixed(fetch, server, tmp_path):
    assert fetch("candidates", "--query.preset", "paper", "--download.rows-per-shard", 8).code == 0
    older = record(tmp_path / "mp") | {"status": "running", "database_version": "2024.01.01"}
    (tmp_path / "mp" / "run.json").write_text(json.dumps(older))
    outcome = fetch("candidates", "--query.preset", "paper", "--download.rows-per-shard", 8)
    assert outcome.code == 2
    for release in ("2024.01.01", "2025.09.25"):
        assert release in outcome.err


def test_a_killed_download_goes_on_and_fetches_nothing_twice(fetch, server, tmp_path, monkeypatch):
    options = ("--download.rows-per-shard", 3, "--download.threads", 1, "--query.lacks", "phonon")
    output = tmp_path / "mp"
    command = [
        sys.executable,
        "jobs/ingest.py",
        "mp",
        "candidates",
        "--output",
        output,
        "--download.endpoint",
        server.url,
        *options,
    ]
    staged = output / "staged" / "materials"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    server.gate.clear()
    server.before_gate = 2
    try:
        with subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment(MP_API_KEY=KEY), **streams) as process:
            wait_until(lambda: len(server.for_structures()) > 2 or process.poll() is not None, "a third request")
            process.kill()
            assert KEY.encode() not in process.communicate()[0]
    finally:
        server.gate.set()  # a thread of the server waits for it
    finished = 3 * len(list(staged.glob("*.parquet")))
    first = server.fetched()
    assert finished == 6
    assert len(first) - finished == 3, "only the shard under way is lost"
    server.requests.clear()
    assert fetch("candidates", *options).code == 0
    then = server.fetched()
    assert not set(then) & set(first[:finished])
    rows, rejects = read(output, "materials"), read(output, "rejects")
    assert len({row["material_id"] for row in rows}) == len(rows)
    assert {row["material_id"] for row in rows + rejects} == {*first, *then}
    assert len(rows + rejects) == finished + len(then)
    assert not (output / "staged").exists()
    server.requests.clear()
    monkeypatch.delenv("MP_API_KEY")
    assert fetch("candidates", *options).code == 0
    assert server.requests == [], "a finished download asks nobody"
