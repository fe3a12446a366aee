"""Throughput of a screening on 1 to 64 nodes, and its bottleneck: predicted from stages timed here, and simulated.

    python benchmarks/scaling.py [--rows-per-shard 1000] [--cores 16] [--nodes 1 2 4 8 16 32 64] [--store-mb 1000]

Predicted: the smallest of three rates. That of the nodes is their cores over the core-seconds of a shard. That of the
driver is one over its CPU time per shard, measured with simulated workers that take no time, as many as there would
be. That of the store is its bandwidth, which you give, over the bytes of a shard. Simulated: the real engine, with as
many sleeping workers as the nodes have cores; one process stands for 128 of them. At the end, how long many shards take
to plan and start, and the memory of the driver.

The simulation leaves out reading and writing, the nodes and worker processes that Ray has to look after, their start,
stragglers and losses. On a machine with few cores the simulated workers' processes and Ray's take cores from the
driver, so that its limit is a lower bound. The prediction leaves out the time that a shard waits for the store, and
everything above. GPUs, and graphs built in tasks of their own for them, are not modeled.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts

# isort: split
from simulated_workers import Measurement, simulate

from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.shards.shard import Shard
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.predict.table import prediction_table
from mat2spec.provenance import environment
from mat2spec.storage.tables import read_parquet_rows
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.empty_space import empty_radius
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.structure.symmetry import primitive_nsites

HOME = Path(__file__).parents[1]
BUNDLED = HOME / "mat2spec/data/bundled/mp_structures.parquet"
STAGES = ("read", "featurize", "predict", "write")


class Cost(NamedTuple):
    """Cost of a shard.

    Args:
        seconds: Core-seconds of each stage.
        moved: Bytes read from and written to the store.
    """

    seconds: dict[str, float]
    moved: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=5, help="number of shards to time; the median counts")
    parser.add_argument("--cores", type=int, default=16, help="cores of a node")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument(
        "--store-mb", type=float, default=1000, help="[MB/s] bandwidth of the store that all nodes share"
    )
    parser.add_argument("--many-shards", type=int, default=100_000, help="number of shards to plan and start; 0: none")
    parser.add_argument("--checkpoint", type=Path, default=HOME / "mat2spec/checkpoints/phdos")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = Checkpoint.load(arguments.checkpoint)
    rows = arguments.rows_per_shard
    cost = time_shard(Predictor(checkpoint, torch.device("cpu")), rows, arguments.shards)
    total = sum(cost.seconds.values())
    print(f"{environment()['hardware']}; {arguments.checkpoint.name}, shards of {rows} rows, {cost.moved / 1e3:.0f} kB")
    for name, seconds in (cost.seconds | {"all": total}).items():
        print(f"  {name:<10}{1e3 * seconds:>8.0f} ms/shard, {rows / seconds:>8.0f} rows/s on one core")
    with ray_session():
        store = arguments.store_mb * 1e6 / cost.moved
        print(f"  store     {store:.0f} shards/s at {arguments.store_mb:g} MB/s\n")
        print(" nodes  cores  predicted rows/s   limit  simulated rows/s  ratio  driver ms/shard  driver busy")
        for nodes in arguments.nodes:
            cores = nodes * arguments.cores
            idle = simulate_on(cores, 0.0, rows)
            limits = {"cores": cores / total, "driver": 1 / idle.driver_seconds, "store": store}
            limit = min(limits, key=limits.__getitem__)
            measured = simulate_on(cores, total, rows)
            predicted = rows * limits[limit]
            simulated = rows * measured.shards_per_second
            busy = measured.driver_seconds * measured.shards_per_second
            print(
                f"{nodes:>6}{cores:>7}{predicted:>18.0f}{limit:>8}{simulated:>18.0f}{simulated / predicted:>7.2f}"
                f"{1e3 * measured.driver_seconds:>17.2f}{busy:>12.0%}",
                flush=True,
            )
        if arguments.many_shards:
            many = simulate(make_shards(arguments.many_shards, rows), 0.0, arguments.cores)
            print(
                f"\n{arguments.many_shards} shards: the first reported after {many.first_seconds:.1f} s, "
                f"{many.driver_bytes / 1e9:.2f} GB in the driver, {many.shards_per_second:.0f} shards/s"
            )


SHARDS_PER_CORE = 24
"""Shards for each core in a simulation: the first two of each are not measured, and the last end at different times."""

MIN_SHARDS = 400
"""Number of shards in the smallest simulation with workers that take no time."""


def simulate_on(cores: int, seconds: float, rows: int) -> Measurement:
    """Simulate a screening of full shards on a number of cores."""
    count = max(SHARDS_PER_CORE * cores, MIN_SHARDS if not seconds else 0)
    return simulate(make_shards(count, rows), seconds, cores)


def make_shards(count: int, rows: int) -> list[Shard]:
    """Return full shards of a table that nobody reads."""
    return [Shard(f"part-{i:06d}", (str(BUNDLED),), range(i * rows, (i + 1) * rows), ()) for i in range(count)]


def time_shard(predictor: Predictor, rows: int, repeats: int) -> Cost:
    """Run shards spread over the bundled structures through each stage, one after the other on one core."""
    count = pq.read_metadata(BUNDLED).num_rows
    seconds: dict[str, list[float]] = {name: [] for name in STAGES}
    moved = 0
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 1):
            start = (count - rows) * repeat // repeats
            path = Path(folder, f"{repeat}.parquet")
            warm_up: dict[str, list[float]] = {name: [] for name in STAGES}
            moved = run_stages(predictor, range(start, start + rows), path, seconds if repeat else warm_up)
    return Cost({name: statistics.median(values) for name, values in seconds.items()}, moved)


def run_stages(predictor: Predictor, rows: range, path: Path, seconds: dict[str, list[float]]) -> int:
    """Run rows through all stages, appending the time of each; return the bytes read and written."""
    with timed(seconds["read"]):
        table = read_parquet_rows(str(BUNDLED), tuple(rows))
    with timed(seconds["featurize"]):
        inputs, usable, graphs, nsites_primitive, empty_radii = featurize(table, predictor)
    with timed(seconds["predict"]):
        prediction = predictor.predict_graphs(graphs)
    with timed(seconds["write"]):
        predictions = prediction_table(inputs, usable, nsites_primitive, empty_radii, prediction, predictor.checkpoint)
        pq.write_table(predictions, path)
    return path.stat().st_size + table.nbytes


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append the CPU time of the block; of this process alone, because others share the cores."""
    start = time.process_time()
    yield
    seconds.append(time.process_time() - start)


def featurize(
    table: pa.Table, predictor: Predictor
) -> tuple[pa.Table, list[Crystal], list[CrystalGraph], list[int], list[float]]:
    """Build the graphs of a table; return the usable rows, their crystals, graphs, primitive sites and empty radii."""
    positions, usable, graphs = [], [], []
    for position, crystal in enumerate(read_crystals(table)):
        if isinstance(crystal, Crystal):
            try:
                graphs.append(build_graph(crystal, predictor.checkpoint.card.config.graph))
            except StructureError:
                continue
            positions.append(position)
            usable.append(crystal)
    sizes, radii = [primitive_nsites(crystal) for crystal in usable], [empty_radius(crystal) for crystal in usable]
    return table.take(positions), usable, graphs, sizes, radii


if __name__ == "__main__":
    main()
