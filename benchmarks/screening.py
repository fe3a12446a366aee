"""Throughput of a whole screening compared with two plain processes that do the same without Ray.

    python benchmarks/screening.py [--repeats 3] [--rows 78974] [--checkpoint mat2spec/checkpoints/phdos]

The plain processes have one thread each and are pinned to a core. Both build graphs of, predict and write all bundled
structures, in turn. The rate of the job counts from when its first worker is ready, that of the processes from when
they have loaded the network; start times are printed separately.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
BUNDLED = HOME / "mat2spec/data/bundled/mp_structures.parquet"
CORES = 2
ROWS_AT_ONCE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=78_974)
    parser.add_argument("--checkpoint", type=Path, default=HOME / "mat2spec/checkpoints/phdos")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        process_part(arguments.part, arguments.rows, arguments.checkpoint)
        return
    jobs: list[dict[str, Any]] = []
    plain: list[float] = []
    for _ in range(arguments.repeats):
        job = run_job(arguments.rows, arguments.checkpoint)
        jobs.append(job)
        print(
            f"job: {job['rate']:.0f} rows/s after the start; first shard after {job['first']:.1f} s, "
            f"{job['total']:.1f} s in total; workers busy {job['utilization']:.0%}; bottleneck: {job['bottleneck']}",
            flush=True,
        )
        plain.append(run_plain(arguments.rows, arguments.checkpoint))
        print(f"{CORES} plain processes: {plain[-1]:.0f} rows/s", flush=True)
    ratio = statistics.median(job["rate"] for job in jobs) / statistics.median(plain)
    print(
        f"{arguments.rows} rows, medians of {arguments.repeats}: "
        f"the job has {ratio:.2f} × the rate of {CORES} plain processes"
    )


def run_job(rows: int, checkpoint: Path) -> dict[str, Any]:
    """Screen rows with jobs/screen.py; return its rate, times and bottleneck."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command: list[str | Path] = [
            sys.executable,
            HOME / "jobs/screen.py",
            HOME / "configs/screen-phdos.yaml",
            "--input",
            write_table(folder, rows),
            "--no-track",
        ]
        start = time.perf_counter()
        subprocess.run([*command, "--checkpoint", checkpoint, "--output", run], check=True, stdout=subprocess.DEVNULL)
        total = time.perf_counter() - start
        stages = json.loads((run / "run.json").read_text())["stages"]
        return {
            "rate": stages["rows_per_second_after_start"],
            "first": total - stages["pipeline_seconds"] - stages["ray_start_seconds"] + stages["first_shard_seconds"],
            "total": total,
            "utilization": stages["utilization"],
            "bottleneck": stages["bottleneck"],
        }


def write_table(folder: str, rows: int) -> Path:
    """Write the first rows of the bundled table."""
    import pyarrow.parquet as pq

    path = Path(folder, "input.parquet")
    pq.write_table(pq.read_table(BUNDLED).slice(0, rows), path, row_group_size=4_000)
    return path


def run_plain(rows: int, checkpoint: Path) -> float:
    """Return the total rate of the processes: all rows over the time of the slower one."""
    options = ["--rows", str(rows), "--checkpoint", str(checkpoint)]
    processes = [
        subprocess.Popen([sys.executable, __file__, "--part", str(part), *options], stdout=subprocess.PIPE, text=True)
        for part in range(CORES)
    ]
    seconds = [float(process.communicate()[0]) for process in processes]
    return rows / max(seconds)


def process_part(part: int, rows: int, checkpoint: Path) -> None:
    """Predict every other thousand of the rows on one core; print the seconds after the start."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[part]})
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from mat2spec.data.materials.schema import read_crystals
    from mat2spec.errors import StructureError
    from mat2spec.model.checkpoint import Checkpoint
    from mat2spec.predict.predictor import Predictor
    from mat2spec.predict.table import prediction_table
    from mat2spec.structure.crystal import Crystal
    from mat2spec.structure.empty_space import empty_radius
    from mat2spec.structure.graph import build_graph
    from mat2spec.structure.symmetry import primitive_nsites

    torch.set_num_threads(1)
    predictor = Predictor(Checkpoint.load(checkpoint), torch.device("cpu"))
    config = predictor.checkpoint.card.config.graph
    with tempfile.TemporaryDirectory() as folder:
        file = pq.ParquetFile(write_table(folder, rows))
        start = time.perf_counter()
        for number, batch in enumerate(file.iter_batches(ROWS_AT_ONCE)):
            if number % CORES != part:
                continue
            inputs = pa.Table.from_batches([batch])
            positions, usable, graphs = [], [], []
            for position, crystal in enumerate(read_crystals(inputs)):
                if isinstance(crystal, Crystal):
                    try:
                        graphs.append(build_graph(crystal, config))
                    except StructureError:
                        continue
                    positions.append(position)
                    usable.append(crystal)
            predictions = prediction_table(
                inputs.take(pa.array(positions)),
                usable,
                [primitive_nsites(crystal) for crystal in usable],
                [empty_radius(crystal) for crystal in usable],
                predictor.predict_graphs(graphs),
                predictor.checkpoint,
            )
            pq.write_table(predictions, f"{folder}/part-{number}.parquet", compression="zstd")
        print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
