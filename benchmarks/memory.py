"""Memory of a screening as its input grows; the input is the bundled table, repeated under new ids.

    python benchmarks/memory.py [--rows 10000 100000 1000000] [--checkpoint mat2spec/checkpoints/phdos-mat2spec]

Memory is the sum of proportional set sizes over the job and all its children, Ray's included, sampled twice a second;
memory that several processes share is counted once. The plateau is the mean over the last half of the time between
the first and the last shard.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

HOME = Path(__file__).parents[1]
BUNDLED = HOME / "mat2spec/data/bundled/mp_structures.parquet"
ROWS_PER_GROUP = 4_000
GB = 1e9


class Memory(NamedTuple):
    """Memory of one job [bytes].

    Args:
        peak: Largest sample.
        plateau: Mean of the last half of the samples after the first shard.
        seconds: Duration of the job [s].
    """

    peak: float
    plateau: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--checkpoint", type=Path, default=HOME / "mat2spec/checkpoints/phdos-mat2spec")
    arguments = parser.parse_args()
    measured = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_table(rows, Path(folder, "input.parquet"))
            measured.append(measure(Path(folder), arguments.checkpoint))
        memory = measured[-1]
        print(
            f"{rows:>9} rows: plateau {memory.plateau / GB:.2f} GB "
            f"({memory.plateau / measured[0].plateau:.2f} × the first), "
            f"peak {memory.peak / GB:.2f} GB, {memory.seconds:.0f} s",
            flush=True,
        )


def write_table(rows: int, path: Path) -> None:
    """Write the bundled table repeatedly under new ids, in row groups of ROWS_PER_GROUP."""
    table = pq.read_table(BUNDLED)
    written = 0
    column = table.column_names.index("material_id")
    with pq.ParquetWriter(path, table.schema) as writer:
        for turn in range(-(-rows // len(table))):
            ids = pa.array([f"{name}-{turn}" for name in table["material_id"].to_pylist()])
            part = table.set_column(column, table.schema.field(column), ids).slice(0, rows - written)
            writer.write_table(part, row_group_size=ROWS_PER_GROUP)
            written += len(part)


def measure(folder: Path, checkpoint: Path) -> Memory:
    """Screen the folder's table and sample the memory of the job."""
    run = folder / "run"
    command: list[str | Path] = [
        sys.executable,
        HOME / "jobs/screen.py",
        HOME / "configs/screen-phdos.yaml",
        "--input",
        folder / "input.parquet",
        "--no-track",
    ]
    start = time.perf_counter()
    peak = 0.0
    samples = []
    with subprocess.Popen(
        [*command, "--checkpoint", checkpoint, "--output", run], stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            memory = proportional_set_size(process.pid)
            peak = max(peak, memory)
            if any((run / "predictions").glob("*.parquet")):
                samples.append(memory)
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the job ended with {process.returncode}")
    late = samples[len(samples) // 2 : -4] or samples
    return Memory(peak, sum(late) / len(late), time.perf_counter() - start)


def proportional_set_size(pid: int) -> float:
    """Memory of a process and its children [bytes]; shared memory is divided among those that share it."""
    total = 0.0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return total
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


if __name__ == "__main__":
    main()
