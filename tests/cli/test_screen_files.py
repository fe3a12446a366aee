"""Screenings of structure files, archives and CSV: a materials table of them is made first, in the run."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from running import job_lines, tree
from screening import start

from mat2spec.data.materials.lookup import read_crystals_by_id, screened_table
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.shard import read_shard
from mat2spec.predict.predictor import Predictor
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.crystal import Crystal

pytestmark = pytest.mark.timeout(1200)  # a busy machine takes long to start so many processes

OPTIONS = (
    *("--input", "structures", "--output", "from-files", "--reading.disorder", "ordered"),
    *("--where", "duplicate_of IS NULL AND coalesce(mass, 1) < 10"),
)

REJECTED = {"bad", "huge", "cif-1"}


def read(run: Path, folder: str) -> pa.Table:
    """All rows; those of the user's tables have more columns than the others."""
    tables = [pq.read_table(file) for file in sorted((run / folder).iterdir())]
    return pa.concat_tables(tables, promote_options="default")


@pytest.fixture(scope="module")
def folder(home, real_crystals) -> Path:
    """Files, of which two have the same content, an archive, a file of two structures, a table, and faulty ones."""
    folder = home / "structures"
    folder.mkdir()
    structures = [crystal.to_structure() for crystal in real_crystals]
    for i in range(3):
        structures[i].to(str(folder / f"file-{i}.vasp"), fmt="poscar")
    structures[2].to(str(folder / "same.vasp"), fmt="poscar")
    structures[3].to(str(home / "member.cif"))
    with tarfile.open(folder / "archive.tar.gz", "w:gz") as archive:
        archive.add(home / "member.cif", "x/member.cif")
    texts = [str(CifWriter(structures[i])).replace("data_", f"data_block-{i}-") for i in (4, 5)]
    (folder / "two.cif").write_text("\n".join(texts))
    cifs = [structures[6].to(fmt="cif"), "none", structures[9].to(fmt="cif")]
    table = pa.table({"material_id": ["cif-0", "cif-1", "cif-2"], "cif": cifs, "mass": [1.5, 2.5, 99.0]})
    pa.csv.write_csv(table, folder / "table.csv")
    sites = [{"Na": 0.5, "K": 0.5}, "Cl"]
    mixed = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), sites, [[0, 0, 0], [0.5, 0.5, 0.5]])
    mixed.to(str(folder / "mixed.cif"))
    (folder / "bad.cif").write_text("data_\n_cell_length_a what\n")
    with (folder / "huge.cif").open("wb") as huge:
        huge.truncate(2 * 2**30)
    (folder / "notes.txt").write_text("ignored")
    return folder


@pytest.fixture(scope="module")
def run(home, folder) -> Path:
    with start(home, *OPTIONS) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert job_lines(err) == []
    first, *_, last = out.splitlines()
    assert first.startswith("13 structures in 10 files (1 other ignored: 1 .txt): 10 rows (1 with ")
    assert last == f"11 input rows: 8 predictions, 3 rejects in {home / 'from-files'}"
    return home / "from-files"


def test_every_structure_that_meets_the_condition_is_a_prediction_or_a_reject(run, folder):
    names = {row["material_id"] for row in read(run, "predictions").to_pylist()}
    blocks = {name for name in names if name.startswith("block-")}
    assert len(blocks) == 2
    assert names - blocks == {"file-0", "file-1", "file-2", "member", "cif-0", "mixed"}
    rejects = {row["material_id"]: row for row in read(run, "rejects").to_pylist()}
    assert rejects.keys() == REJECTED
    assert {row["stage"] for row in rejects.values()} == {"read"}
    assert rejects["bad"]["source"] == str(folder / "bad.cif")
    record = json.loads((run / "run.json").read_text())
    assert record["counts"] == {"input": 11, "predictions": 8, "rejects": 3}
    assert record["identity"]["reading"]["disorder"] == "ordered"


def test_predictions_are_those_of_the_table_in_the_run(run, checkpoint):
    shards = MaterialsInput.open(run / "materials", "duplicate_of IS NULL AND coalesce(mass, 1) < 10").shards(100)
    table = pa.concat_tables([read_shard(shard).table for shard in shards], promote_options="default")
    crystals = [row for row in read_crystals(table) if isinstance(row, Crystal)]
    rows = {row["material_id"]: row for row in read(run, "predictions").to_pylist()}
    expected = Predictor(checkpoint, torch.device("cpu")).predict_spectra(crystals)
    for crystal, spectrum, row in zip(crystals, expected, table.to_pylist(), strict=True):
        np.testing.assert_allclose(rows[crystal.material_id]["spectrum"], spectrum, atol=1e-5)
        for column in ("source", "ordered_from", "content_hash", "nsites_primitive"):
            assert rows[crystal.material_id][column] == row[column]
    assert rows["cif-0"]["mass"] == 1.5
    assert rows["mixed"]["ordered_from"]
    assert "input_nsites_primitive" not in read(run, "predictions").schema.names


def test_table_in_the_run_can_be_queried_and_screened_itself(run, job):
    answer = job("query", run / "materials", "SELECT count(*) AS n FROM materials", "--format", "json")
    assert json.loads(answer.out) == [{"n": 10}]
    assert MaterialsInput.open(run) == MaterialsInput.open(run / "materials"), "a run of structure files is its table"


def test_verification_takes_structures_from_the_run_whatever_became_of_the_files(run, folder, real_crystals):
    record = RunDirectory(run).record | {"input": {"path": "/nowhere", "table": "materials"}}
    crystals = read_crystals_by_id(screened_table(record, run), ["file-1", "same", "nowhere"])
    assert crystals.keys() == {"file-1"}, "the condition left out the duplicate"
    assert crystals["file-1"].formula == real_crystals[1].formula


def test_same_command_once_more_changes_no_file(run, job):
    before = tree(run)
    outcome = job("screen", "screen.yaml", *OPTIONS)
    assert (outcome.code, outcome.out) == (0, f"11 input rows: 8 predictions, 3 rejects in {run}\n"), outcome.err
    assert tree(run) == before


@pytest.mark.parametrize(
    ("change", "shown"),
    [(("--reading.disorder", "reject"), "disorder: ordered"), (("--where", "nsites < 9"), "nsites < 9")],
)
def test_other_readings_and_conditions_are_refused(run, job, change, shown):
    before = tree(run)
    outcome = job("screen", "screen.yaml", *OPTIONS, *change)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert shown in outcome.err
    assert tree(run) == before


def test_run_of_a_version_without_a_table_is_refused_in_one_line(folder, home, job):
    old = home / "old"
    (old / "predictions").mkdir(parents=True)
    identity = {"checkpoint": "c", "input": "i", "where": None, "rows_per_shard": 5}
    record = {"status": "running", "identity": identity, "input": {"path": str(folder), "files": 9}}
    (old / "run.json").write_text(json.dumps(record))
    before = tree(old)
    outcome = job("screen", "screen.yaml", "--input", "structures", "--output", "old", "--allow-new-rows")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "reading: None in the run" in outcome.err
    assert tree(old) == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--input", "structures", "--where", "nsites <"), "where: nsites <: "),
        (("--input", "structures", "--where", "masses > 1"), "masses"),
        (("--input", "structures", "--reading.disorder", "ignored"), "ignored"),
        (("--input", "structures/notes.txt"), "holds 1 file, none of a known format"),
        (("--input", "structures/*.none"), "matches no file"),
        (("--input", "nowhere"), "nowhere: does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_exit_two_and_writes_nothing(folder, home, job, arguments, line):
    outcome = job("screen", "screen.yaml", "--output", "new", *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert line in outcome.err
    assert not (home / "new").exists()


def test_added_and_repaired_files_are_screened_too(run, folder, home, job, real_crystals):
    """Files without anything usable are a finished run of rejects only, meanwhile."""
    before = {file: file.read_bytes() for file in (run / "predictions").glob("part-*")}
    for i, name in ((7, "new.vasp"), (8, "bad.cif")):
        real_crystals[i].to_structure().to(str(folder / name), fmt="cif" if name.endswith("cif") else "poscar")
    refused = job("screen", "screen.yaml", *OPTIONS)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--allow-new-rows" in refused.err
    (home / "broken.cif").write_text("data_\n")
    with (
        start(home, *OPTIONS, "--allow-new-rows") as process,
        start(home, "--input", "broken.cif", "--output", "nothing") as nothing,
    ):
        out, err = process.communicate(timeout=600)
        only_rejects, _ = nothing.communicate(timeout=600)
    assert process.returncode == 0, err
    assert f"\n12 input rows: 10 predictions, 2 rejects in {run}\n" in out
    assert {file: file.read_bytes() for file in before} == before, "what was done stays as it was"
    ids = read(run, "predictions")["material_id"].to_pylist()
    assert len(ids) == len(set(ids))
    assert {"new", "bad"} < set(ids)
    assert set(read(run, "rejects")["material_id"].to_pylist()) == REJECTED - {"bad"}
    assert nothing.returncode == 0
    assert f"1 input row: 0 predictions, 1 reject in {home / 'nothing'}" in only_rejects
    assert pq.read_schema(home / "nothing/predictions/ingest.parquet").names == (
        pq.read_schema(home / "nothing/predictions/part-000000.parquet").names
    )
