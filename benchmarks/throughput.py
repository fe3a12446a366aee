"""Throughput of each stage of a screening on one core, compared with that of a whole job.

    python benchmarks/throughput.py [--rows 8000] [--repeats 3] [--run runs/screen-phdos]

Stages are timed in turn within each repeat, on rows spread over the bundled structures; the table gives medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch

from mat2spec.data.materials.schema import read_crystals
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.provenance import environment
from mat2spec.storage.run_directory import RunDirectory
from mat2spec.structure.graph import build_graph
from mat2spec.structure.symmetry import primitive_nsites

HOME = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", type=Path, help="finished screening, to print its rate for comparison")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor(Checkpoint.load(HOME / "mat2spec/checkpoints/phdos"), torch.device("cpu"))
    config = predictor.checkpoint.card.config.graph
    table = pq.read_table(HOME / "mat2spec/data/bundled/mp_structures.parquet")
    table = table.take(list(range(0, len(table), max(1, len(table) // arguments.rows))))
    rows = [row for row in read_crystals(table) if not isinstance(row, StructureError)]
    graphs = []
    for row in rows:
        try:
            graphs.append(build_graph(row, config))
        except StructureError:
            continue

    def build() -> None:
        for row in rows:
            try:
                build_graph(row, config)
            except StructureError:
                continue

    stages: dict[str, Callable[[], object]] = {
        "read rows as crystals": lambda: list(read_crystals(table)),
        "build graphs": build,
        "count primitive sites": lambda: [primitive_nsites(row) for row in rows],
        "predict spectra": lambda: predictor.predict_graphs(graphs),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(arguments.repeats):
        for name, stage in stages.items():
            start = time.perf_counter()
            stage()
            seconds[name].append(time.perf_counter() - start)
    print(f"{len(table)} structures, one core, median of {arguments.repeats}; {environment()['hardware']}")
    for name, measured in seconds.items():
        print(f"  {name:<24}{len(table) / statistics.median(measured):>10.0f} structures/s")
    one_core = len(table) / sum(map(statistics.median, seconds.values()))
    print(f"  {'all stages':<24}{one_core:>10.0f} structures/s")
    if arguments.run:
        rate = RunDirectory(arguments.run).record["stages"]["rows_per_second"]
        label = f"the job in {arguments.run}"
        print(f"  {label:<24}{rate:>10.0f} structures/s on all cores, {rate / one_core:.2f} × one core")


if __name__ == "__main__":
    main()
