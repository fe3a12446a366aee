"""A screening whose input, checkpoint and run are in an object store: killed, finished, and given more rows."""

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from screening import DONE, HELD_FROM, ROWS_PER_SHARD, assert_complete, gate_before_writing, start, wait_until_held

from mat2spec.storage.location import locate

pytestmark = [
    pytest.mark.filterwarnings("default"),  # of the packages that speak to the store
    pytest.mark.timeout(1200),  # a busy machine takes long to start so many processes
]

FIRST = 100
"""Rows that are there from the beginning."""


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """An object store on this machine, as the environment names it."""
    server = ThreadedMotoServer(port=0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def client(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")


def objects(client, prefix: str) -> dict[str, tuple]:
    """Hash of the content, and time of writing, of each object."""
    entries = client.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])
    return {entry["Key"]: (entry["ETag"], entry["LastModified"]) for entry in entries}


def put(client, table: pa.Table, key: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    client.put_object(Bucket="lake", Key=key, Body=sink.getvalue().to_pybytes())


def read(folder: str) -> pa.Table:
    return pa.concat_tables(
        pq.read_table(file.open("rb")) for file in sorted(locate(folder).glob("*.parquet"), key=str)
    )


def submission(folder: str) -> tuple[object, ...]:
    """Command that screens the rows of a folder of the store into a run of the same name."""
    options = ("--input", f"s3://lake/{folder}", "--checkpoint", "s3://lake/checkpoint")
    return ("python", "jobs/screen.py", "screen.yaml", *options, "--output", f"s3://lake/{folder}-run")


def put_checkpoint(client, directory: Path) -> None:
    client.create_bucket(Bucket="lake")
    for file in directory.iterdir():
        client.put_object(Bucket="lake", Key=f"checkpoint/{file.name}", Body=file.read_bytes())


def done(table_with_bad_rows: tuple[pa.Table, dict], rows: int) -> str:
    """What is printed of the first so many rows; mp-1000 is good until it comes again."""
    ids = table_with_bad_rows[0]["material_id"].to_pylist()[:rows]
    assert ids.count("mp-1000") <= 1
    rejected = sum(name in table_with_bad_rows[1] for name in ids if name != "mp-1000")
    return f"{rows} input rows: {rows - rejected} predictions, {rejected} rejects"


def test_run_in_a_store_whose_driver_was_killed_is_finished_with_force_unlock(
    client, variables, home, head, table_with_bad_rows, checkpoint_directory, job, tmp_path
):
    put_checkpoint(client, checkpoint_directory)
    put(client, table_with_bad_rows[0].slice(0, FIRST), "killed/a.parquet")
    command = submission("killed")
    gate = gate_before_writing("predictions", tmp_path)
    with head.submit(*command, home=home, variables=variables | gate.variables, name="in a store") as process:
        wait_until_held(gate, process)
        (driver,) = head.processes("python jobs/screen.py screen.yaml --input s3://lake/killed")
        driver.kill()
        process.communicate(timeout=240)
    first = objects(client, "killed-run/predictions")
    assert len(first) == HELD_FROM < FIRST // ROWS_PER_SHARD
    locked = job(*("screen", *command[2:]))
    assert (locked.code, locked.err.count("\n")) == (2, 1)
    assert f"process {driver.pid} on " in locked.err
    assert "--force-unlock" in locked.err
    code, output = head.run(*command, "--force-unlock", home=home, variables=variables)
    assert code == 0, output
    assert f"{done(table_with_bad_rows, FIRST)} in s3://lake/killed-run" in output
    whole = objects(client, "killed-run/")
    assert first.items() <= whole.items(), "what was done stays as it was"
    assert {"killed-run/run.json", "killed-run/catalog.duckdb"} <= whole.keys()
    assert not [key for key in whole if key.split("/")[-1].startswith(".")]


def test_rows_that_are_added_in_a_store_are_screened_when_that_is_allowed(
    client, variables, home, head, table_with_bad_rows, checkpoint, checkpoint_directory, job
):
    put_checkpoint(client, checkpoint_directory)
    put(client, table_with_bad_rows[0].slice(0, FIRST), "grown/a.parquet")
    command = submission("grown")
    code, output = head.run(*command, home=home, variables=variables)
    assert code == 0, output
    assert f"{done(table_with_bad_rows, FIRST)} in s3://lake/grown-run" in output
    whole = objects(client, "grown-run/")

    put(client, table_with_bad_rows[0].slice(FIRST), "grown/b.parquet")
    refused = job(*("screen", *command[2:]))
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--allow-new-rows" in refused.err
    assert objects(client, "grown-run/") == whole

    more = ("--allow-new-rows", "--inference.separate-featurization", "True")
    code, output = head.run(*command, *more, home=home, variables=variables)
    assert code == 0, output
    assert f"{DONE} in s3://lake/grown-run" in output
    assert {item for item in whole.items() if item[0].endswith(".parquet")} <= objects(client, "grown-run/").items()
    same = job(*("screen", *command[2:]))
    assert (same.code, same.out) == (0, f"{DONE} in s3://lake/grown-run\n"), same.err
    predictions, rejects = read("s3://lake/grown-run/predictions"), read("s3://lake/grown-run/rejects")
    assert_complete(predictions, rejects, checkpoint, table_with_bad_rows)

    question = "SELECT count(*) AS n, max(mean_frequency) > 0 AS moves FROM predictions"
    counted = job("query", "s3://lake/grown-run", question, "--format", "json")
    assert json.loads(counted.out) == [{"n": 200, "moves": True}], counted.err
    assert job("query", "s3://lake/grown-run", "@reject_reasons").code == 0


def test_table_of_structure_files_is_made_in_the_store(client, variables, home, real_crystals):
    client.create_bucket(Bucket="lake")
    for crystal in real_crystals[:3]:
        cif = crystal.to_structure().to(fmt="cif")
        client.put_object(Bucket="lake", Key=f"files/{crystal.material_id}.cif", Body=cif.encode())
    client.put_object(Bucket="lake", Key="files/bad.cif", Body=b"data_")
    arguments = ("--input", "s3://lake/files", "--output", "s3://lake/from-files")
    with start(home, *arguments, **variables) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "\n4 input rows: 3 predictions, 1 reject in s3://lake/from-files\n" in out
    ids = {crystal.material_id for crystal in real_crystals[:3]}
    assert set(read("s3://lake/from-files/predictions")["material_id"].to_pylist()) == ids
    assert read("s3://lake/from-files/rejects")["source"].to_pylist() == ["s3://lake/files/bad.cif"]
    files = ("run.json", "catalog.duckdb", "materials/part-000000.parquet", "rejects/part-000000.parquet")
    assert set(objects(client, "from-files/materials/")) == {f"from-files/materials/{file}" for file in files}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--output", "s3://nosuchbucket/run"), "s3://nosuchbucket/run: cannot be written ("),
        (("--input", "s3://nosuchbucket/in", "--output", "new"), "s3://nosuchbucket/in: "),
        (("--checkpoint", "s3://nosuchbucket/c", "--output", "new"), "s3://nosuchbucket/c: "),
    ],
)
def test_store_that_has_no_such_thing_is_one_line_and_exit_two(client, home, job, arguments, line):
    outcome = job("screen", "screen.yaml", *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert line in outcome.err
    assert not (home / "new").exists()
