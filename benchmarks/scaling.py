"""How fast a screening is on 1 to 64 nodes, and what holds it up: predicted from stages timed here, and rehearsed with sleepers.

    python benchmarks/scaling.py [--rows-per-shard 1000] [--cores 16] [--nodes 1 2 4 8 16 32 64] [--store-mb 1000]

Predicted: the least of three rates. The nodes' is their cores over the core-seconds of a shard; the driver's is one over its CPU time for
a shard, measured with workers that take no time, as many as there would be; the store's is its bandwidth, which is yours to give, over
the bytes of a shard. Rehearsed: the real driver, with as many sleepers as the nodes have cores; a process stands for 128 of them.

Left out of the rehearsal: reading and writing, nodes and worker processes that Ray has to look after, starting them, stragglers and
losses. On a machine of few cores the sleepers' own processes and Ray's take cores from the driver, so its limit is a lower bound. Left
out of the prediction: the time of a shard that only waits for the store, and everything above. GPUs, and graphs built by other tasks for
them, are not modelled.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mat2spec.distributed.session import ray_session  # before ray itself: sets how Ray starts

# isort: split
from benchmarks.simulated_workers import Rehearsal, rehearse
from mat2spec.config import InferenceConfig
from mat2spec.data.materials.schema import read_crystals
from mat2spec.data.materials.shards import Shard
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.pipeline import ScreeningSpec
from mat2spec.predict.predictor import Predictor
from mat2spec.predict.table import prediction_table
from mat2spec.provenance import environment
from mat2spec.storage.parquet_rows import read_parquet_rows
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph
from mat2spec.structure.symmetry import primitive_nsites

HOME = Path(__file__).parents[1]
BUNDLED = HOME / "mat2spec/data/bundled/mp_structures.parquet"
STAGES = ("read", "featurise", "predict", "write")


class Cost(NamedTuple):
    """What a shard costs.

    Args:
        seconds: Core-seconds of each stage.
        moved: Bytes that it reads from and writes to the store.
    """

    seconds: dict[str, float]
    moved: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows-per-shard", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=5, help="that are timed; the median counts")
    parser.add_argument("--cores", type=int, default=16, help="of a node")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument(
        "--store-mb", type=float, default=1000, help="[MB/s] bandwidth of the store that all nodes share"
    )
    parser.add_argument("--checkpoint", type=Path, default=HOME / "mat2spec/checkpoints/phdos")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = Checkpoint.load(arguments.checkpoint)
    shard = time_shard(Predictor(checkpoint, torch.device("cpu")), arguments.rows_per_shard, arguments.shards)
    total = sum(shard.seconds.values())
    print(
        f"{environment()['hardware']}; {arguments.checkpoint.name}, shards of {arguments.rows_per_shard} rows, {shard.moved / 1e3:.0f} kB"
    )
    for name, seconds in (shard.seconds | {"all": total}).items():
        print(
            f"  {name:<10}{1e3 * seconds:>8.0f} ms a shard, {arguments.rows_per_shard / seconds:>8.0f} rows/s on one core"
        )
    with ray_session():
        store = arguments.store_mb * 1e6 / shard.moved
        print(f"  store     {store:.0f} shards/s at {arguments.store_mb:g} MB/s\n")
        print(" nodes  cores  predicted rows/s   limit  rehearsed rows/s  ratio  driver ms/shard  driver busy")
        for nodes in arguments.nodes:
            cores = nodes * arguments.cores
            idle = rehearse_on(cores, 0.0, checkpoint, arguments.rows_per_shard)
            limits = {"cores": cores / total, "driver": 1 / idle.driver_seconds, "store": store}
            limit = min(limits, key=lambda name: limits[name])
            found = rehearse_on(cores, total, checkpoint, arguments.rows_per_shard)
            predicted, rehearsed = (
                rate * arguments.rows_per_shard for rate in (limits[limit], found.shards_per_second)
            )
            busy = found.driver_seconds * found.shards_per_second
            print(
                f"{nodes:>6}{cores:>7}{predicted:>18.0f}{limit:>8}{rehearsed:>18.0f}{rehearsed / predicted:>7.2f}"
                f"{1e3 * found.driver_seconds:>17.2f}{busy:>12.0%}",
                flush=True,
            )


WAVES = 6
"""Shards for each core of a rehearsal."""

FEWEST = 400
"""Shards of the smallest rehearsal."""


def rehearse_on(cores: int, seconds: float, checkpoint: Checkpoint, rows: int) -> Rehearsal:
    """Rehearse a screening of full shards on so many cores."""
    recipe = ScreeningSpec(checkpoint, InferenceConfig(predictors=cores), "", None)
    count = max(WAVES * cores, FEWEST if not seconds else 0)
    shards = [Shard(f"part-{i:06d}", (str(BUNDLED),), range(i * rows, (i + 1) * rows), ()) for i in range(count)]
    return rehearse(recipe, shards, seconds)


def time_shard(predictor: Predictor, rows: int, repeats: int) -> Cost:
    """Run shards spread over the bundled structures through each stage, one after the other on one core."""
    count = pq.read_metadata(BUNDLED).num_rows
    seconds: dict[str, list[float]] = {name: [] for name in STAGES}
    moved = 0
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 1):
            start = (count - rows) * repeat // repeats
            timed = Stopwatch(seconds if repeat else {name: [] for name in STAGES})  # the first warms up
            table = timed(
                "read", lambda start=start: read_parquet_rows(str(BUNDLED), tuple(range(start, start + rows)))
            )
            inputs, kept, graphs, primitive = timed("featurise", lambda table=table: featurise(table, predictor))
            prediction = timed("predict", lambda graphs=graphs: predictor.predict_graphs(graphs))
            path = Path(folder, f"{repeat}.parquet")
            parts = (inputs, kept, primitive, prediction, predictor.checkpoint)
            timed("write", lambda parts=parts, path=path: pq.write_table(prediction_table(*parts), path))
            moved = path.stat().st_size + table.nbytes
    return Cost({name: statistics.median(values) for name, values in seconds.items()}, moved)


class Stopwatch:
    """Runs things and notes what they took, by name."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self._seconds = seconds

    def __call__(self, name: str, work: Callable):
        start = time.process_time()  # this process alone: others share the cores
        result = work()
        self._seconds[name].append(time.process_time() - start)
        return result


def featurise(table: pa.Table, predictor: Predictor) -> tuple[pa.Table, list[Crystal], list, list[int]]:
    def usable() -> Iterator[tuple[int, Crystal, object]]:
        for position, crystal in enumerate(read_crystals(table)):
            if isinstance(crystal, Crystal):
                try:
                    yield position, crystal, build_graph(crystal, predictor.checkpoint.card.config.graph)
                except StructureError:
                    continue

    positions, kept, graphs = zip(*usable(), strict=True)
    return table.take(list(positions)), list(kept), list(graphs), [primitive_nsites(crystal) for crystal in kept]


if __name__ == "__main__":
    main()
