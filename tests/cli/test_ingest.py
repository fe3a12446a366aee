"""Files of all kinds, good and bad, as one materials table that a screening reads; killed, and on an object store."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import boto3
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from faults import Gate, with_faults
from moto.server import ThreadedMotoServer
from running import ROOT, environment, wait_until

from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.screening_input import MaterialsInput
from mat2spec.data.shards.shard import read_shard
from mat2spec.structure.crystal import Crystal

HELD = "same"
"""Name of a file that a gate holds while an ingestion is killed: ten are before it, so that some shards are done."""

SHARDS = 24
"""12 rows of a table, another table, 2 archives, 9 files."""


def read(output: Path, folder: str) -> list[dict]:
    return [row for file in sorted((output / folder).iterdir()) for row in pq.read_table(file).to_pylist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_table) -> Path:
    """One of each: files, an archive, tables, and everything that can be wrong with them."""
    made = tmp_path_factory.mktemp("structures")
    found = [crystal for crystal in read_crystals(small_table) if isinstance(crystal, Crystal)]
    texts = [crystal.to_structure().to(fmt="cif") for crystal in found[:9]]
    (made / "deep" / "er").mkdir(parents=True)
    (made / "one.cif").write_text(texts[0])
    (made / "deep" / "two.cif.gz").write_bytes(gzip.compress(texts[1].encode()))
    found[2].to_structure().to(str(made / "deep" / "POSCAR"), fmt="poscar")
    (made / "deep" / "er" / "one.cif").write_text(texts[3])
    (made / "same.cif").write_text(texts[0])
    (made / "table.csv").write_text(pa_csv([("csv-a", texts[4], 1.5), ("csv-b", "no structure", 2.5)]))
    pq.write_table(small_table.slice(0, 12), made / "table.parquet")
    with tarfile.open(made / "archive.tar.gz", "w:gz") as archive:
        for name, text in (("x/five.cif", texts[5]), ("../six.cif", texts[6]), ("x/table.csv", "cif")):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    (made / "empty.cif").write_text("")
    (made / "binary.cif").write_bytes(bytes(range(256)))
    (made / "truncated.json").write_text(json.dumps(found[7].to_structure().as_dict())[:300])
    (made / "broken.zip").write_bytes(b"PK\3\4 and no more")
    (made / "loop").symlink_to(made)
    with (made / "huge.cif").open("wb") as huge:
        huge.truncate(2 * 2**30)
    (made / "notes.txt").write_text("ignored")
    return made


def pa_csv(rows: list[tuple[str, str, float]]) -> str:
    sink = io.BytesIO()
    ids, cifs, gaps = zip(*rows, strict=True)
    pa.csv.write_csv(pa.table({"material_id": ids, "cif": cifs, "band_gap": gaps}), sink)
    return sink.getvalue().decode()


@pytest.fixture(scope="module")
def ingested(folder, tmp_path_factory) -> tuple[Path, str]:
    """By processes of their own, as a user does it: killed after some shards, while others are held; then finished."""
    output = tmp_path_factory.mktemp("ingested") / "table"
    command = [sys.executable, "jobs/ingest.py", "files", folder, "--output", output, "--rows-per-shard", "1"]
    staged = output / "staged" / "materials"
    site = tmp_path_factory.mktemp("gate")
    gate = Gate([HELD], site)
    variables = with_faults({name: f"read:{fault}" for name, fault in gate.faults.items()}, site)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**variables), start_new_session=True, stdout=subprocess.PIPE
    ) as process:
        wait_until(lambda: len(list(staged.glob("*.parquet"))) > 3 or process.poll() is not None, "three shards")
        wait_until(lambda: gate.held() or process.poll() is not None, "a process is held")
        others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
    for left in psutil.wait_procs(others, timeout=5)[1]:  # Ray's own may take minutes to notice
        left.kill()
    assert 3 < len(list(staged.glob("*.parquet"))) < SHARDS
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def test_every_structure_is_one_row_or_one_reject_with_its_reason(ingested, folder):
    output, printed = ingested
    rows, rejects = (
        read(output, "materials"),
        {row["source"].removeprefix(f"{folder}/"): row["error"] for row in read(output, "rejects")},
    )
    expected = {
        "empty.cif": "empty",
        "binary.cif": "binary",
        "truncated.json": "cannot be read as a structure",
        "broken.zip": "damaged",
        "huge.cif": "more than 100,000,000 bytes",
        "loop": "a link to a folder above it",
        "archive.tar.gz!../six.cif": "leads out of the archive",
        "archive.tar.gz!x/table.csv": "table inside an archive",
        "table.csv, row 1": "csv-b",
        "one.cif": "one: ",
    }
    assert rejects.keys() == expected.keys()
    for source, reason in expected.items():
        assert reason in rejects[source], rejects[source]
    assert len(rows) == 6 + 12
    record = json.loads((output / "run.json").read_text())
    assert record["counts"] == {"input": len(rows) + len(rejects), "materials": len(rows), "rejects": len(rejects)}
    assert record["ignored_files"] == 1
    assert f"{len(rows) + len(rejects)} structures in 13 files (1 other ignored: 1 .txt): {len(rows)} rows" in printed
    assert not (output / "staged").exists()


def test_rows_keep_their_columns_and_say_where_they_come_from(ingested, folder):
    rows = {row["material_id"]: row for row in read(ingested[0], "materials")}
    assert rows["csv-a"]["band_gap"] == 1.5
    assert rows["five"]["source"] == f"{folder}/archive.tar.gz!x/five.cif"
    assert rows["POSCAR"]["content_hash"] == rows["POSCAR"]["content_hash"].lower()
    assert len(rows["two"]["content_hash"]) == 32
    assert rows["same"]["duplicate_of"] == rows["one"]["duplicate_of"] or rows["same"]["duplicate_of"] == "one"


def test_table_is_input_of_a_screening(ingested):
    materials = MaterialsInput.open(ingested[0])
    (found, *empty) = [read_shard(shard) for shard in materials.shards(100) if len(shard)]
    rows = [crystal for shard in (found, *empty) for crystal in read_crystals(shard.table)]
    assert [crystal.material_id for crystal in rows] == [row["material_id"] for row in read(ingested[0], "materials")]
    assert all(isinstance(crystal, Crystal) for crystal in rows)


def test_undisturbed_ingestion_in_one_process_gives_the_same(ingested, folder, job, tmp_path, monkeypatch):
    monkeypatch.setattr("mat2spec.distributed.ingest.files.SHARDS_WITHOUT_RAY", 1000)
    outcome = job("ingest", "files", folder, "--output", tmp_path / "table", "--rows-per-shard", "1")
    assert outcome.code == 0, outcome.err
    assert outcome.out.split(" in ")[0] == ingested[1].split(" in ")[0]
    for kind in ("materials", "rejects"):
        assert read(tmp_path / "table", kind) == read(ingested[0], kind)


def test_same_command_again_changes_nothing_and_another_is_refused(ingested, folder, job):
    output, printed = ingested
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")}
    options = ("--rows-per-shard", "1")
    again = job("ingest", "files", folder, "--output", output, *options)
    assert (again.code, again.out) == (0, printed)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet")} == before
    other = job("ingest", "files", folder, "--output", output, *options, "--reading.disorder", "ordered")
    assert other.code == 2
    assert re.search(f"^error: {output}: .*disorder.*reject.*ordered", other.err)


def test_table_answers_what_was_rejected_and_can_be_split(ingested, job, tmp_path):
    output = ingested[0]
    counted = job("query", output, "@reject_reasons", "--format", "json")
    assert sum(row["rows"] for row in json.loads(counted.out)) == len(read(output, "rejects")), counted.err
    refused = job("query", output, "@stiff_oxides")
    assert refused.code == 2
    assert "@stiff_oxides" in refused.err
    assert "@reject_reasons" in refused.err
    split = job(
        "ingest",
        "split",
        output,
        "--by",
        "random",
        "--fractions",
        "0.6",
        "0.2",
        "0.2",
        "--replace",  # one of the ingested tables has labels, and such a column
        "--output",
        tmp_path / "split.parquet",
    )
    assert split.code == 0, split.err
    assert len(pq.read_table(tmp_path / "split.parquet")) == len(read(output, "materials"))


@pytest.fixture(scope="module")
def store(folder) -> str:
    """An object store on this machine with two of the files."""
    server = ThreadedMotoServer(port=0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket="mine")
    for name in ("deep/two.cif.gz", "table.parquet"):
        client.upload_file(str(folder / name), "mine", f"in/{name}")
    yield url
    server.stop()


def test_object_store_is_read_like_a_folder(store, tmp_path, folder, ingested):
    variables = {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "jobs/ingest.py", "files", "s3://mine/in", "--output", tmp_path / "table"]
    done = subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hashes = {row["material_id"]: row["content_hash"] for row in read(ingested[0], "materials")}
    found = read(tmp_path / "table", "materials")
    assert len(found) == 13
    assert all(hashes[row["material_id"]] == row["content_hash"] for row in found)
    assert {row["source"].split("/")[-1] for row in found} == {
        "two.cif.gz",
        *(f"table.parquet, row {i}" for i in range(12)),
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "files, mp, substitute, split, labels"),
        (("file",), "files"),
        (("files", "nowhere", "--output", "new"), "nowhere: does not exist; give"),
        (("files", "labels.parquet"), "--output"),
        (("files", "labels.parquet", "--output", "new", "--reading.disorder", "ignored"), "ignored"),
        (("files", "labels.parquet", "--output", "shipped"), "not empty and holds no run.json"),
        (("files", "nosuch://x", "--output", "new"), "nosuch://x: cannot be listed"),
    ],
)
def test_wrong_command_is_refused_in_one_line(job, home, arguments, line):
    outcome = job("ingest", *arguments)
    assert outcome.code == 2
    assert line in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (home / "new").exists()


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="a small disk is made by mounting it")
def test_full_disk_is_one_line_and_what_was_done_is_kept(tmp_path, home, job):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine cannot mount a file system")
    try:
        outcome = job(
            "ingest",
            "files",
            ROOT / "mat2spec/data/bundled/phdos_petretto.parquet",
            "--output",
            disk / "table",
            "--rows-per-shard",
            "600",
        )
        assert outcome.code == 1
        assert "No space left on device" in outcome.err
        assert "run the same command to resume" in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    finally:
        subprocess.run(["umount", disk], check=True)
