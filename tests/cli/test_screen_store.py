"""A screening whose input, checkpoint and run are in an object store: killed, finished, and given more rows."""

import json
from collections.abc import Iterator

import boto3
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from moto.server import ThreadedMotoServer
from running import wait_until
from test_screen import ROWS_PER_SHARD, STEP, end, gate_from, start

from mat2spec.data.materials.schema import read_crystals
from mat2spec.predict.predictor import Predictor
from mat2spec.storage.location import locate
from mat2spec.structure.crystal import Crystal

pytestmark = pytest.mark.filterwarnings("default")  # of the packages that speak to the store

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


def read(folder: str) -> list[dict]:
    return [
        row
        for file in sorted(map(str, locate(folder).glob("*.parquet")))
        for row in pq.read_table(locate(file).open("rb")).to_pylist()
    ]


def test_everything_may_be_in_an_object_store(
    client, variables, home, table_with_bad_rows, checkpoint, checkpoint_directory, job, tmp_path
):
    client.create_bucket(Bucket="lake")
    put(client, table_with_bad_rows[0].slice(0, FIRST), "in/a.parquet")
    for file in checkpoint_directory.iterdir():
        client.put_object(Bucket="lake", Key=f"checkpoint/{file.name}", Body=file.read_bytes())
    arguments = ("--input", "s3://lake/in", "--checkpoint", "s3://lake/checkpoint", "--output", "s3://lake/run")

    gate = gate_from(STEP, table_with_bad_rows[0], tmp_path)
    with start(home, *arguments, **variables, **gate.variables) as process:
        wait_until(lambda: objects(client, "run/predictions") or process.poll() is not None, "the first shard")
        others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
    end(others)
    first = objects(client, "run/predictions")
    assert 0 < len(first) < FIRST // ROWS_PER_SHARD
    locked = job("screen", "screen.yaml", *arguments)
    assert (locked.code, locked.err.count("\n")) == (2, 1)
    assert f"process {process.pid} on " in locked.err
    assert "--force-unlock" in locked.err
    with start(home, *arguments, "--force-unlock", **variables) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    ids = table_with_bad_rows[0]["material_id"].to_pylist()
    rejected = sum(
        name in table_with_bad_rows[1] for name in ids[:FIRST] if name != "mp-1000"
    )  # which is good until it comes again
    assert "mp-1000" not in ids[ids.index("mp-1000") + 1 : FIRST]
    assert f"{FIRST} input rows: {FIRST - rejected} predictions, {rejected} rejects in s3://lake/run" in out
    whole = objects(client, "run/")
    assert first.items() <= whole.items(), "what was done stays as it was"
    assert {"run/run.json", "run/catalog.duckdb"} <= whole.keys()
    assert not [key for key in whole if key.split("/")[-1].startswith(".")]

    put(client, table_with_bad_rows[0].slice(FIRST), "in/b.parquet")
    refused = job("screen", "screen.yaml", *arguments)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--allow-new-rows" in refused.err
    assert objects(client, "run/") == whole

    with start(
        home, *arguments, "--allow-new-rows", "--inference.separate-featurization", "True", **variables
    ) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "211 input rows: 200 predictions, 11 rejects in s3://lake/run" in out
    now = objects(client, "run/")
    assert {key: now[key] for key in whole if key.endswith(".parquet")} == {
        key: whole[key] for key in whole if key.endswith(".parquet")
    }
    same = job("screen", "screen.yaml", *arguments)
    assert (same.code, same.out) == (0, "211 input rows: 200 predictions, 11 rejects in s3://lake/run\n"), same.err

    by_id = {}
    for row in read_crystals(table_with_bad_rows[0]):
        if isinstance(row, Crystal):
            by_id.setdefault(row.material_id, row)
    predictions = read("s3://lake/run/predictions")
    assert len({row["material_id"] for row in predictions}) == len(predictions) == 200
    expected = Predictor(checkpoint, torch.device("cpu")).predict_spectra(
        [by_id[row["material_id"]] for row in predictions]
    )
    np.testing.assert_allclose([row["spectrum"] for row in predictions], expected, atol=1e-5)
    rejects = {row["material_id"]: row["error_type"] for row in read("s3://lake/run/rejects")}
    assert rejects == {material_id: error_type for material_id, (_, error_type, _) in table_with_bad_rows[1].items()}

    counted = job(
        "query",
        "s3://lake/run",
        "SELECT count(*) AS n, max(mean_frequency) > 0 AS moves FROM predictions",
        "--format",
        "json",
    )
    assert json.loads(counted.out) == [{"n": 200, "moves": True}], counted.err
    assert job("query", "s3://lake/run", "@reject_reasons").code == 0


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
    assert {row["material_id"] for row in read("s3://lake/from-files/predictions")} == ids
    assert {row["source"] for row in read("s3://lake/from-files/rejects")} == {"s3://lake/files/bad.cif"}
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
