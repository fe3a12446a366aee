"""Small screenings that tests start, hold at a point, end, and check; each has 211 rows in 43 shards."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from faults import Gate
from running import ROOT, environment, wait_until

from mat2spec.data.materials.schema import read_crystals
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal

SAME_SPECTRUM = 1e-5
"""States per cm⁻¹ per atom: float32 sums in batches of another composition."""

ROWS_PER_SHARD, SHARDS = 5, 43

DONE = "211 input rows: 200 predictions, 11 rejects"

HELD_FROM = 8
"""Number of the first shard that gates hold: some shards are done, most are not."""


def start(home: Path, *arguments: object, **variables: object) -> subprocess.Popen:
    """Start a screening as a user in a terminal does: a process group of its own, with its own Ray."""
    command = [sys.executable, "jobs/screen.py", "screen.yaml", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(MAT2SPEC_HOME=home, **variables), start_new_session=True, **pipes
    )


def gate_before_writing(part: str, folder: Path, shard: int = HELD_FROM) -> Gate:
    """A gate before one of the two files of a shard, and of every later shard.

    Args:
        part: The files, "rejects", which come first, or "predictions", which make a shard done.
        folder: For the gate.
        shard: Number of the shard.
    """
    return Gate([f"write {part}/part-{number:06d}.parquet" for number in range(shard, SHARDS)], folder)


def gate_at_rows(table: pa.Table, folder: Path, shard: int = HELD_FROM) -> Gate:
    """A gate at the materials of a shard and of all after it; a material that comes before, too, is left out."""
    ids = table["material_id"].to_pylist()
    first = shard * ROWS_PER_SHARD
    return Gate(set(ids[first:]) - {None, *ids[:first]}, folder)


def wait_until_held(gate: Gate, process: subprocess.Popen) -> int:
    """Wait until a gate holds a worker of a job; return its process id."""
    wait_until(lambda: gate.held() or process.poll() is not None, "a worker is held")
    assert process.poll() is None, process.communicate()
    return gate.held()[0]


def kill(name: str, processes: list[psutil.Process]) -> None:
    """Kill the first process of a name; Ray's workers have titles of their own."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if (" ".join(process.cmdline()) or process.name()).startswith(name) or process.name() == name:
                process.kill()
                return
    raise AssertionError(f"no process {name}")


def end(others: list[psutil.Process]) -> None:
    """Await the processes of a Ray whose driver is gone; some may take minutes to notice."""
    for left in psutil.wait_procs(others, timeout=5)[1]:
        left.kill()


def read(run: Path, folder: str) -> pa.Table:
    """All rows of a folder of a run on a disk."""
    return pa.concat_tables([pq.read_table(file) for file in sorted((run / folder).iterdir())])


def files(run: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and its content."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}


def predicted(run: Path) -> dict[Path, tuple[int, bytes]]:
    """The files of the shards that are done."""
    return files(run / "predictions")


def assert_complete(
    predictions: pa.Table, rejects: pa.Table, checkpoint: Checkpoint, table_with_bad_rows: tuple[pa.Table, dict]
) -> None:
    """Every row is one prediction, that of the predictor itself, or one reject of the kind that it must be."""
    table, reasons = table_with_bad_rows
    assert dict(zip(rejects["material_id"].to_pylist(), rejects["error_type"].to_pylist(), strict=True)) == {
        name: error_type for name, (_, error_type, _) in reasons.items()
    }
    ids = predictions["material_id"].to_pylist()
    wanted = [name for name in table["material_id"].to_pylist() if name not in reasons or name == "mp-1000"]
    assert sorted(ids) == sorted(set(wanted)), "mp-1000 is good where it comes first"
    crystals = {row.material_id: row for row in reversed(list(read_crystals(table))) if isinstance(row, Crystal)}
    expected = Predictor(checkpoint, torch.device("cpu")).predict_spectra([crystals[name] for name in ids])
    np.testing.assert_allclose(predictions["spectrum"].to_pylist(), expected, atol=SAME_SPECTRUM)
