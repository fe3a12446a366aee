import json
import os
import pickle
import re
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mat2spec.storage.run_directory
from mat2spec.errors import RunError, StorageError
from mat2spec.storage.location import locate, storage_errors
from mat2spec.storage.run_directory import RECORD, RunDirectory

IDENTITY = {"checkpoint": "a" * 64, "input": "b" * 64, "where": None, "rows_per_shard": 2}
TWO, ONE, NONE = (pa.table({"material_id": pa.array([f"mp-{i}" for i in range(n)], pa.string())}) for n in (2, 1, 0))


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    claimed = RunDirectory(tmp_path / "run")
    claimed.claim(IDENTITY, {"grid": {}})
    return claimed


def files(run: RunDirectory) -> list[str]:
    return sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())


def saved_record(run: RunDirectory) -> dict[str, Any]:
    return json.loads((run.path / RECORD).read_text())


@dataclass
class Accesses:
    """How often run.json was read and written."""

    reads: int = 0
    writes: int = 0


@pytest.fixture
def accesses(monkeypatch) -> Accesses:
    counts = Accesses()
    read, write = Path.read_bytes, mat2spec.storage.run_directory.write_json

    def counted_read(path: Path) -> bytes:
        counts.reads += path.name == RECORD
        return read(path)

    def counted_write(path: Path, record: dict[str, Any]) -> None:
        counts.writes += 1
        write(path, record)

    monkeypatch.setattr(Path, "read_bytes", counted_read)
    monkeypatch.setattr("mat2spec.storage.run_directory.write_json", counted_write)
    return counts


def test_claimed_directory_holds_the_record_of_its_run(run):
    assert run.record == saved_record(run) == {"status": "running", "identity": IDENTITY, "grid": {}}
    assert files(run) == [RECORD]
    assert run.committed() == set()


def test_claiming_again_for_the_same_screening_changes_nothing(run):
    before = (run.path / RECORD).read_bytes()
    run.claim(IDENTITY, {"grid": "other details do not matter"})
    assert (run.path / RECORD).read_bytes() == before


def test_claim_for_another_screening_is_refused_and_shows_both_values(run):
    with pytest.raises(RunError) as caught:
        run.claim(IDENTITY | {"checkpoint": "c" * 64, "where": "nsites < 9"}, {})
    message = str(caught.value)
    assert re.search(f"checkpoint.*{'a' * 64}.*{'c' * 64}.*where.*None.*nsites < 9", message)
    assert message.startswith(f"{run.path}: holds another run")
    assert "choose another --output" in message
    assert "\n" not in message


def test_claim_for_another_screening_names_what_differs(tmp_path):
    """Hashes tell a user nothing; names and paths are in the record."""
    run = RunDirectory(tmp_path / "run")
    phdos, edos = {"name": "phdos", "path": "/a"}, {"name": "edos", "path": "/b"}
    run.claim(IDENTITY, {"checkpoint": phdos, "input": {"path": "my_cifs", "files": 2}})
    other = IDENTITY | {"checkpoint": "c" * 64}
    grown = IDENTITY | {"input": "c" * 64}
    for identity, details, difference in (
        (other, {"checkpoint": edos}, "checkpoint: phdos in the run, edos in this command"),
        (other, {"checkpoint": phdos | {"path": "/b"}}, "checkpoint: /a in the run, /b in this command"),
        (other, {"checkpoint": phdos}, "checkpoint: phdos, which has changed since"),
        (grown, {"input": {"path": "your_cifs"}}, "input: my_cifs in the run, your_cifs in this command"),
        (grown, {"input": {"path": "my_cifs", "files": 3}}, "input: my_cifs, which has changed since"),
    ):
        for refuse in (run.check, run.claim):
            with pytest.raises(RunError) as caught:
                refuse(identity, details)
            assert f"holds another run ({difference}); " in str(caught.value)


@pytest.mark.parametrize("name", ["run", "it's [1-3] {x} é"])
def test_run_in_an_object_store_finds_its_shards(name):
    run = RunDirectory(locate(f"memory://{uuid.uuid4()}/{name}"))
    run.claim(IDENTITY, {})
    assert run.committed() == set()
    run.commit("part-000000", TWO, ONE)
    assert run.committed() == {"part-000000"}
    assert run.finish(3, {}) == {"predictions": 2, "rejects": 1}


def test_directory_that_holds_something_else_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"not empty and holds no run\.json"):
        RunDirectory(tmp_path).claim(IDENTITY, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_empty_directory_may_be_claimed(tmp_path):
    RunDirectory(tmp_path).claim(IDENTITY, {})
    assert (tmp_path / RECORD).exists()


def test_missing_or_damaged_record_is_refused_in_one_line(run):
    for text, reason in (("{", "cannot be read"), (None, r"no run here: run\.json is missing")):
        (run.path / RECORD).write_text(text) if text else (run.path / RECORD).unlink()
        with pytest.raises(RunError, match=reason) as caught:
            RunDirectory(run.path).record  # noqa: B018 - it is a property
        assert "\n" not in str(caught.value)


def test_new_run_writes_each_change_of_its_record_once_and_reads_none(tmp_path, accesses):
    run = RunDirectory(tmp_path / "run")
    assert not run.check(IDENTITY)
    run.claim(IDENTITY, {})
    run.commit("part-000000", TWO, ONE)
    run.note(mlflow_run_id="7")
    run.finish(3, {"stages": {}})
    assert run.is_finished(IDENTITY)
    assert run.record == saved_record(run)
    assert (run.record["mlflow_run_id"], run.record["counts"]["input"]) == ("7", 3)
    assert (accesses.reads, accesses.writes) == (0, 3), "written by claim, note and finish"


def test_resumed_run_reads_its_record_once_before_it_is_locked_and_once_after(run, accesses):
    run.commit("part-000000", TWO, ONE)
    resumed = RunDirectory(run.path)
    assert resumed.check(IDENTITY)
    assert not resumed.is_finished(IDENTITY)
    assert accesses.reads == 1
    resumed.claim(IDENTITY, {})
    resumed.note(mlflow_run_id="7")
    resumed.finish(3, {})
    assert resumed.record == saved_record(run)
    assert (accesses.reads, accesses.writes) == (2, 2), "written by note and finish"


def test_claim_keeps_what_another_job_wrote_since_the_check(run):
    late = RunDirectory(run.path)
    assert late.check(IDENTITY)
    run.note(mlflow_run_id="7")
    late.claim(IDENTITY, {})
    late.note(note="added")
    assert saved_record(run) == {
        "status": "running", "identity": IDENTITY, "grid": {}, "mlflow_run_id": "7", "note": "added"
    }  # fmt: skip


def test_record_that_cannot_be_written_stays_as_it_was(run, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mat2spec.storage.run_directory.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        run.note(mlflow_run_id="7")
    assert run.record == saved_record(run)


def test_run_directory_on_a_worker_commits_and_reads_the_record_itself(run, accesses):
    copy = pickle.loads(pickle.dumps(run))
    run.note(mlflow_run_id="7")
    copy.commit("part-000000", TWO, ONE)
    assert accesses.reads == 0
    assert (copy, copy.record["mlflow_run_id"]) == (run, "7")


def test_rejects_are_written_before_predictions(run, monkeypatch):
    """Predictions make a shard done: once they are written, its rejects must be, too."""
    written = []
    write = mat2spec.storage.run_directory.write_parquet

    def record(path, table) -> None:
        written.append((path.parent.name, files(run)))
        write(path, table)

    monkeypatch.setattr("mat2spec.storage.run_directory.write_parquet", record)
    run.commit("part-000000", TWO, ONE)
    assert [folder for folder, _ in written] == ["rejects", "predictions"]
    assert "rejects/part-000000.parquet" in written[1][1], "rejects have their name before predictions are begun"
    assert files(run) == ["predictions/part-000000.parquet", "rejects/part-000000.parquet", RECORD]


@pytest.mark.parametrize("killed_in", ["rejects", "predictions"])
def test_shard_killed_while_it_is_written_is_not_done_and_counts_nothing_twice(run, monkeypatch, killed_in):
    replace = Path.replace

    def killed(partial, file) -> Path:
        if file.parent.name == killed_in:
            partial.write_bytes(partial.read_bytes()[:20])
            raise KeyboardInterrupt
        return replace(partial, file)

    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(Path, "unlink", lambda *_: None)  # a killed process does not clean up
    with pytest.raises(KeyboardInterrupt):
        run.commit("part-000000", TWO, ONE)
    monkeypatch.undo()
    assert any("partial" in name for name in files(run))
    assert run.committed() == set()
    assert run.counts()["predictions"] == 0
    run.commit("part-000000", TWO, ONE)
    assert run.committed() == {"part-000000"}
    assert run.counts() == {"predictions": 2, "rejects": 1}


def test_committing_again_replaces_a_shard(run):
    for _ in range(2):
        run.commit("part-000000", TWO, ONE)
    assert run.counts() == {"predictions": 2, "rejects": 1}


def test_finished_run_has_counts_and_no_partial_files(run):
    run.commit("part-000000", TWO, NONE)
    run.commit("part-000001", NONE, ONE)
    (run.path / "predictions" / ".part-000001.99.partial").write_bytes(b"left by a kill")
    assert run.finish(3, {"stages": {"rows": 3}}) == {"predictions": 2, "rejects": 1}
    record = json.loads((run.path / RECORD).read_text())
    assert record["status"] == "finished"
    assert record["counts"] == {"input": 3, "predictions": 2, "rejects": 1}
    assert (record["identity"], record["stages"]) == (IDENTITY, {"rows": 3})
    assert files(run) == [
        f"{folder}/part-00000{i}.parquet" for folder in ("predictions", "rejects") for i in (0, 1)
    ] + [RECORD]


def test_run_whose_rows_do_not_add_up_is_not_finished(run):
    run.commit("part-000000", TWO, NONE)
    with pytest.raises(RuntimeError, match="do not add up to 3 input rows"):
        run.finish(3, {})
    assert run.record["status"] == saved_record(run)["status"] == "running"


def test_rows_may_be_added_to_the_input_if_that_is_allowed(run):
    run.commit("part-000000", TWO, ONE)
    run.finish(3, {})
    grown = IDENTITY | {"input": "d" * 64}
    with pytest.raises(RunError, match=f"input.*{'b' * 64}.*{'d' * 64}.*--allow-new-rows"):
        run.claim(grown, {})
    assert run.is_finished(IDENTITY)
    run.claim(grown, {}, new_rows=True)
    record = saved_record(run)
    assert (record["status"], record["identity"]) == ("running", grown)
    assert record["additions"] == [{"replaced_input": "b" * 64}]
    run.claim(grown, {}, new_rows=True)
    assert run.record == saved_record(run) == record, "once is enough"
    with pytest.raises(RunError, match=r"where.*None.*nsites < 9"):
        run.claim(grown | {"where": "nsites < 9", "input": "e" * 64}, {}, new_rows=True)


def test_rows_are_counted_by_id_in_results_and_rejects(run):
    run.commit("part-000000", TWO, pa.table({"material_id": pa.array(["mp-1", None, None])}))
    run.commit("part-000001", ONE, NONE)
    rows = {row["material_id"]: row["rows"] for row in run.rows_by_id(["part-000000"]).to_pylist()}
    assert rows == {"mp-0": 1, "mp-1": 2, None: 2}
    assert run.rows_by_id([]).num_rows == 0


def test_rejects_of_a_shard_that_was_never_done_do_not_count(run, monkeypatch):
    """Killed between its two files; then rows were added, and its rows went into other shards."""
    write = mat2spec.storage.run_directory.write_parquet
    monkeypatch.setattr(
        "mat2spec.storage.run_directory.write_parquet",
        lambda path, table: None if path.parent.name == "predictions" else write(path, table),
    )
    run.commit("part-000000", TWO, ONE)
    monkeypatch.undo()
    run.commit("added-001-000000", TWO, ONE)
    assert run.finish(3, {}) == {"predictions": 2, "rejects": 1}
    assert files(run) == ["predictions/added-001-000000.parquet", "rejects/added-001-000000.parquet", RECORD]


def test_directory_of_a_job_killed_before_its_first_file_is_free(tmp_path):
    for folder in ("predictions", "rejects"):
        (tmp_path / "run" / folder).mkdir(parents=True)
    (tmp_path / "run" / ".lock").write_text("{")
    RunDirectory(tmp_path / "run").claim(IDENTITY, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is made by mounting it")
def test_full_disk_leaves_the_shard_undone_and_no_partial_files(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine cannot mount a file system")
    try:
        run = RunDirectory(disk / "run")
        run.claim(IDENTITY, {})
        run.commit("part-000000", TWO, ONE)
        large = pa.table({"material_id": pa.array([uuid.uuid4().hex for _ in range(4_000)])})
        for _ in range(2):
            with pytest.raises(OSError, match="No space left on device"):
                run.commit("part-000001", large, ONE)
        assert run.committed() == {"part-000000"}
        assert not [name for name in files(run) if "partial" in name]
        with (
            pytest.raises(
                StorageError, match=r"run: cannot be written \(No space left on device\); finished work is kept"
            ),
            storage_errors(run.path),
        ):
            run.commit("part-000001", large, ONE)
        run.commit("part-000001", TWO, ONE)
        assert run.finish(6, {}) == {"predictions": 4, "rejects": 2}
    finally:
        subprocess.run(["umount", disk], check=True)
