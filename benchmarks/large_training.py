"""A training of the size of the paper's, 30,000 crystals: time until it starts, crystals per second, memory.

    python benchmarks/distillation.py teacher runs/phdos-teacher.parquet
    python benchmarks/large_training.py [--rows 30000] [--workers 2] [--epochs 2] [--config configs/phdos-additive.yaml]

It trains twice, first with an empty folder of stored graphs (mat2spec/data/labels/lazy_graphs.py); the second training
finds what the first has stored. Labels are predictions of `phdos`. Memory is measured as in memory.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from memory import GB, HOME, proportional_set_size

LABELS = HOME / "mat2spec/data/bundled/phdos_petretto.parquet"


class Run(NamedTuple):
    """What a training took.

    Args:
        rest: Seconds before and after its epochs.
        per_epoch: Seconds of an epoch.
        peak: Largest memory of all its processes [bytes].
    """

    rest: float
    per_epoch: float
    peak: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--table", type=Path, default=Path("runs/phdos-teacher.parquet"))
    parser.add_argument("--config", type=Path, default=HOME / "configs/phdos-additive.yaml")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(arguments.table, arguments.rows, folder / "labels.parquet")
        for which in ("no graph stored", "graphs stored"):
            run = train(arguments, folder, which.replace(" ", "-"))
            rate = arguments.rows / run.per_epoch
            print(
                f"{which}: {rate:.0f} crystals/s, {rate / arguments.workers:.0f} per worker; "
                f"{run.per_epoch:.0f} s an epoch, {run.rest:.0f} s for all else; peak memory {run.peak / GB:.2f} GB",
                flush=True,
            )
        stored = sum(file.stat().st_size for file in folder.glob("mat2spec/graphs/*.arrow"))
        print(f"stored graphs: {stored / GB:.2f} GB")


def write_table(table: Path, rows: int, path: Path) -> None:
    """Write the first rows of a table of predictions as training rows, and the held-out rows of the benchmark."""
    labels = pq.read_table(LABELS)
    held_out = labels.filter(pc.not_equal(labels["split"], "train"))
    predicted = pq.read_table(table)
    is_held_out = pc.is_in(predicted["material_id"], held_out["material_id"])
    predicted = predicted.filter(pc.invert(is_held_out)).slice(0, rows)
    if len(predicted) < rows:
        raise SystemExit(f"--rows {rows}: {table} has {len(predicted)}")
    predicted = predicted.append_column("split", pa.array(["train"] * rows))
    schema = pa.schema([field for field in labels.schema if field.name in predicted.column_names])
    parts = [part.select(schema.names).cast(schema) for part in (predicted, held_out)]
    pq.write_table(pa.concat_tables(parts), path)


def train(arguments: argparse.Namespace, folder: Path, name: str) -> Run:
    """Train with jobs/train.py of this checkout, which stores its graphs in the folder."""
    output = folder / name
    settings = {
        "--data.table": folder / "labels.parquet",
        "--training.epochs": arguments.epochs,
        "--training.batch-size": 256,
        "--workers.num-workers": arguments.workers,
        "--workers.cpus-per-worker": 1,
        "--output": output,
    }
    options = [str(part) for pair in settings.items() for part in pair]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "MAT2SPEC_HOME": str(folder)}
    start = time.perf_counter()
    peak = 0.0
    command = [sys.executable, HOME / "jobs/train.py", arguments.config.absolute(), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            peak = max(peak, proportional_set_size(process.pid))
            time.sleep(1)
    if process.returncode:
        raise SystemExit(f"the training ended with {process.returncode}")
    seconds = json.loads((output / "result.json").read_text())["seconds"]
    return Run(time.perf_counter() - start - seconds, seconds / arguments.epochs, peak)


if __name__ == "__main__":
    main()
