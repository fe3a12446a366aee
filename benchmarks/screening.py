"""A whole screening beside two plain processes, each pinned to a core with one thread, that do the same without Ray.

    python benchmarks/screening.py [--repeats 3] [--rows 78974] [--checkpoint mat2spec/checkpoints/phdos]

Both build graphs, predict and write all bundled structures, in turn. The rate of each is over the time after its start: of the job from its
first worker's being ready, of the processes from having loaded the network; starts are printed apart.
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
        do_part(arguments.part, arguments.rows, arguments.checkpoint)
        return
    jobs, plain = [], []
    for _ in range(arguments.repeats):
        jobs.append(run_job(arguments.rows, arguments.checkpoint))
        print(
            f"job: {jobs[-1]['rate']:.0f} rows/s after the start; first shard after {jobs[-1]['first']:.1f} s, "
            f"{jobs[-1]['total']:.1f} s in all; workers busy {jobs[-1]['utilisation']:.0%}, {jobs[-1]['bottleneck']}",
            flush=True,
        )
        plain.append(run_plain(arguments.rows, arguments.checkpoint))
        print(f"{CORES} plain processes: {plain[-1]:.0f} rows/s", flush=True)
    ratio = statistics.median(job["rate"] for job in jobs) / statistics.median(plain)
    print(
        f"{arguments.rows} rows, medians of {arguments.repeats}: the job has {ratio:.2f} × the rate of {CORES} plain processes"
    )


def run_job(rows: int, checkpoint: Path) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [
            sys.executable,
            HOME / "jobs/screen.py",
            HOME / "configs/screen-phdos.yaml",
            "--input",
            table(folder, rows),
            "--no-track",
        ]
        start = time.perf_counter()
        subprocess.run([*command, "--checkpoint", checkpoint, "--output", run], check=True, stdout=subprocess.DEVNULL)
        total, record = time.perf_counter() - start, json.loads((run / "run.json").read_text())
        stages = record["stages"]
        return {
            "rate": stages["rows_per_second_after_start"],
            "first": total - stages["pipeline_seconds"] - stages["ray_start_seconds"] + stages["first_shard_seconds"],
            "total": total,
            "utilisation": stages["utilisation"],
            "bottleneck": stages["bottleneck"],
        }


def table(folder: str, rows: int) -> Path:
    """The first rows of the bundled table."""
    import pyarrow.parquet as pq

    path = Path(folder, "input.parquet")
    pq.write_table(pq.read_table(BUNDLED).slice(0, rows), path, row_group_size=4_000)
    return path


def run_plain(rows: int, checkpoint: Path) -> float:
    """Give the rate of the processes together: their rows by the time of the slower."""
    options = ["--rows", str(rows), "--checkpoint", str(checkpoint)]
    processes = [
        subprocess.Popen([sys.executable, __file__, "--part", str(part), *options], stdout=subprocess.PIPE, text=True)
        for part in range(CORES)
    ]
    seconds = [float(process.communicate()[0]) for process in processes]
    return rows / max(seconds)


def do_part(part: int, rows: int, checkpoint: Path) -> None:
    """Do every other thousand of the rows on one core; print the seconds after the start."""
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
    from mat2spec.structure.graph import build_graph
    from mat2spec.structure.symmetry import primitive_nsites

    torch.set_num_threads(1)
    predictor = Predictor(Checkpoint.load(checkpoint), torch.device("cpu"))
    config = predictor.checkpoint.card.config.graph
    with tempfile.TemporaryDirectory() as folder:
        file = pq.ParquetFile(table(folder, rows))
        start = time.perf_counter()
        for number, batch in enumerate(file.iter_batches(ROWS_AT_ONCE)):
            if number % CORES != part:
                continue
            inputs = pa.Table.from_batches([batch])
            kept, found, graphs, primitive = [], [], [], []
            for position, crystal in enumerate(read_crystals(inputs)):
                try:
                    if isinstance(crystal, Crystal):
                        graph, sites = build_graph(crystal, config), primitive_nsites(crystal)
                        kept.append(position), found.append(crystal), graphs.append(graph), primitive.append(sites)
                except StructureError:
                    continue
            prediction = predictor.predict_graphs(graphs)
            outcome = prediction_table(inputs.take(pa.array(kept)), found, primitive, prediction, predictor.checkpoint)
            pq.write_table(outcome, f"{folder}/part-{number}.parquet", compression="zstd")
        print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
