"""What a GPU makes of this: its limits, the networks, their memory, training, and whole jobs on Ray.

    python benchmarks/gpu.py [--structures 16000] [--output gpu.json] [--sections limits forward …]

Writes every number to a JSON file and prints it. Without a GPU it runs on the CPU, to be tried; the sections that need
one are left out. Bundled structures; medians of several repeats.

- limits: bandwidth of a copy, rates of matrix products.
- forward: crystals/s with graphs ready, from Python objects to spectra (`Predictor.predict_graphs`), by size of a pass;
  and of networks whose batch is on the device, in several arithmetics, with their largest difference from the CPU's
  outputs in units of the largest output. `flop` counts matrix products only; `floor` is the rate at which the faster
  of them alone, in float32, and reading inputs and weights and writing outputs once would run.
- memory: bytes per edge of a pass.
- training: steps of configs/phdos-additive.yaml.
- screening: `mat2spec screen` of the structures, featurisation in tasks and prediction on the GPU, start included.
- data_parallel: `mat2spec train` with one process, and with two that share the GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from distillation import graph_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mat2spec.config import TrainConfig, load_config
from mat2spec.data.materials.schema import read_crystals
from mat2spec.model import message_kernel
from mat2spec.model.base import Network
from mat2spec.model.checkpoint import Checkpoint, resolve_checkpoint
from mat2spec.model.ensemble import Ensemble
from mat2spec.model.gapped import Gapped
from mat2spec.predict.predictor import Predictor, find_device
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, GraphBatch
from mat2spec.train.inputs import TrainingInputs
from mat2spec.train.loop import Training

HOME = Path(__file__).parents[1]
STRUCTURES = HOME / "mat2spec/data/bundled/mp_structures.parquet"
CHECKPOINTS = ("phdos", "edos", "phdos-mat2spec")
REPEATS = 5

Report = dict[str, Any]


class Setting:
    """What all sections share: the device, the structures and how to time."""

    def __init__(self, structures: int) -> None:
        self.device = find_device()
        table = pq.read_table(STRUCTURES)
        self.table = table.take(pa.array(np.linspace(0, len(table) - 1, structures).astype(int)))
        self._graphs: dict[str, list[CrystalGraph]] = {}

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def graphs(self, checkpoint: Checkpoint) -> list[CrystalGraph]:
        """Graphs of the structures, built once for each kind of graph."""
        config = checkpoint.card.config.graph
        if str(config) not in self._graphs:
            crystals = (row for row in read_crystals(self.table) if isinstance(row, Crystal))
            self._graphs[str(config)] = [graph for row in crystals if (graph := graph_of(row, config))]
        return self._graphs[str(config)]

    def seconds(self, action: Callable[[], object], repeats: int = REPEATS) -> float:
        """Median time of an action whose first run is not counted [s]."""
        action()
        measured = []
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            action()
            self.wait()
            measured.append(time.perf_counter() - start)
        return statistics.median(measured)

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=16_000)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # of the processor, whose part is to start kernels and to join graphs
    setting = Setting(arguments.structures)
    report: Report = {"environment": environment(), "device": str(setting.device), "structures": arguments.structures}
    for name in arguments.sections:
        start = time.perf_counter()
        try:
            report[name] = SECTIONS[name](setting)
        except Exception as error:  # the other sections are worth having
            report[name] = {"error": f"{type(error).__name__}: {error}"}
        report[name]["section_seconds"] = round(time.perf_counter() - start, 1)
        print(name, json.dumps(report[name], indent=1), flush=True)
        arguments.output.write_text(json.dumps(report, indent=1))


def limits(setting: Setting) -> Report:
    """Bandwidth of a copy [TB/s, bytes read and written], and rates of a matrix product [TFLOP/s]."""
    size, numbers = (8192, 2**30) if setting.is_gpu else (1024, 2**24)
    source = torch.randn(numbers, device=setting.device)
    target = torch.empty_like(source)
    report: Report = {"copy": 2 * source.nbytes / setting.seconds(lambda: target.copy_(source)) / 1e12}
    for name, dtype, tf32 in (("float32", None, False), ("tf32", None, True), ("bfloat16", torch.bfloat16, False)):
        left, right = (torch.randn(size, size, device=setting.device, dtype=dtype) for _ in range(2))
        with fast_products(tf32):
            report[name] = 2 * size**3 / setting.seconds(lambda a=left, b=right: a @ b) / 1e12  # type: ignore[misc]
    return report


def forward(setting: Setting) -> Report:
    """Rates of the networks that ship."""
    report: Report = {}
    for name in CHECKPOINTS:
        checkpoint = Checkpoint.load(resolve_checkpoint(name))
        graphs = setting.graphs(checkpoint)
        few = graphs[:: max(1, len(graphs) // 500)]
        expected = Predictor(checkpoint, "cpu").predict_graphs(few).spectra
        predictor = Predictor(checkpoint, setting.device)
        report[name] = {
            "edges_per_crystal": statistics.mean(graph.num_edges for graph in graphs),
            "difference": largest_difference(predictor.predict_graphs(few).spectra, expected),
            "crystals_per_second_by_edges_per_batch": by_size_of_pass(setting, predictor, graphs),
            "on_device": on_device(setting, networks_of(predictor), graphs),
        }
        if isinstance(checkpoint.network, Ensemble):
            report[name]["one_member_on_device"] = on_device(setting, networks_of(predictor)[:1], graphs)
    return report


def by_size_of_pass(setting: Setting, predictor: Predictor, graphs: list[CrystalGraph]) -> Report:
    """Crystals/s from graphs as Python objects to spectra, for passes of several sizes."""
    sizes = (50_000, 100_000, 200_000, 400_000, 800_000) if setting.is_gpu else (4_000,)
    rates: Report = {}
    for size in sizes:
        predictor.edges_per_batch = size
        rates[str(size)] = len(graphs) / setting.seconds(lambda: predictor.predict_graphs(graphs), 3)
    return rates


def on_device(setting: Setting, networks: list[Network], graphs: list[CrystalGraph]) -> Report:
    """Crystals/s of a batch that is on the device, in several arithmetics, and what the hardware would allow."""
    edges = np.cumsum([graph.num_edges for graph in graphs])
    graphs = graphs[: np.searchsorted(edges, 400_000 if setting.is_gpu else 4_000)]
    batch = GraphBatch.from_graphs(graphs).to(setting.device)
    with torch.inference_mode():
        reference = torch.cat([network.outputs(batch) for network in networks], dim=1)
        with FlopCounterMode(display=False) as counter:
            for network in networks:
                network.outputs(batch)
    moved = (batch.atomic_numbers, batch.edge_index, batch.distances, batch.vectors, batch.batch, reference)
    weights = sum(parameter.nbytes for network in networks for parameter in network.parameters())
    report: Report = {
        "crystals": len(graphs),
        "edges": len(batch.distances),
        "flop_per_crystal": counter.get_total_flops() / len(graphs),
        "least_bytes_per_crystal": (sum(tensor.nbytes for tensor in moved) + weights) / len(graphs),
    }
    for name, (context, change) in arithmetics(setting, len(networks)).items():
        functions = [change(network.outputs) for network in networks]
        try:
            report[name] = rate_and_difference(setting, functions, batch, reference, context)
        except Exception as error:  # torch.compile cannot do every network
            report[name] = f"{type(error).__name__}: {error}"[:500]
    return report


def arithmetics(setting: Setting, networks: int) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Contexts in which networks are timed, and what is done to their functions before; compiling takes a while."""
    contexts: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {"float32": (nullcontext, unchanged)}
    if setting.is_gpu:
        contexts |= {
            "without the fused kernel": (without_kernel, unchanged),
            "tf32": (lambda: fast_products(True), unchanged),
            "bfloat16": (lambda: torch.autocast("cuda", torch.bfloat16), unchanged),
        }
    if setting.is_gpu and networks == 1:
        contexts["compiled, without the fused kernel"] = (without_kernel, partial(torch.compile, dynamic=True))
    return contexts


def unchanged(function: Any) -> Any:
    return function


def rate_and_difference(
    setting: Setting, functions: list[Any], batch: GraphBatch, reference: Tensor, context: Callable[[], Any]
) -> Report:
    def run() -> Tensor:
        return torch.cat([outputs(batch).float() for outputs in functions], dim=1)

    with torch.inference_mode(), context():
        difference = largest_difference(run().cpu().numpy(), reference.cpu().numpy())
        return {"crystals_per_second": batch.num_graphs / setting.seconds(run), "difference": difference}


def memory(setting: Setting) -> Report:
    """Memory of a pass, for each edge [bytes]."""
    if not setting.is_gpu:
        return {"skipped": "no GPU"}
    report: Report = {}
    for name in CHECKPOINTS:
        checkpoint = Checkpoint.load(resolve_checkpoint(name))
        graphs = setting.graphs(checkpoint)
        predictor = Predictor(checkpoint, setting.device, 10**9)
        peaks = {}
        for part in (len(graphs) // 8, len(graphs) // 2):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            predictor.predict_graphs(graphs[:part])
            peaks[sum(graph.num_edges for graph in graphs[:part])] = torch.cuda.max_memory_allocated()
        (fewer, less), (more, most) = peaks.items()
        report[name] = {"bytes_per_edge": (most - less) / (more - fewer), "peaks": peaks}
    return report


def training(setting: Setting) -> Report:
    """Crystals/s of epochs of the best phonon network from random weights, without validation."""
    config = load_config(TrainConfig, HOME / "configs/phdos-additive.yaml", [])
    splits = TrainingInputs.from_config(config).splits(config)
    splits = replace(splits, valid=splits.valid.take(np.arange(1)))
    rows = len(splits.train) if setting.is_gpu else 64
    splits = replace(splits, train=splits.train.take(np.arange(rows)))
    report: Report = {"rows": rows}
    for batch_size in (32, 64, 256):
        for name, tf32 in (("float32", False), ("tf32", True))[: 2 if setting.is_gpu else 1]:
            some = config.model_copy(
                update={"training": config.training.model_copy(update={"batch_size": batch_size, "epochs": 100})}
            )
            with fast_products(tf32):
                one = Training(some, splits, setting.device)
                report[f"batches of {batch_size}, {name}"] = rows / setting.seconds(one.run_epoch, 3)
    return report


def screening(setting: Setting) -> Report:
    """A whole job on Ray: what its record says about stages, and its wall time."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(setting.table, Path(folder, "structures.parquet"), row_group_size=2_000)
        report: Report = {}
        for predictors in (1, 2) if setting.is_gpu else (1,):
            run = Path(folder, f"run-{predictors}")
            arguments = ["--checkpoint", "phdos", "--input", str(Path(folder, "structures.parquet"))]
            arguments += ["--output", str(run), "--inference.predictors", str(predictors)]
            report[f"{predictors} predictors"] = run_job("screen.py", arguments) | {
                "stages": json.loads((run / "run.json").read_text())["stages"]
            }
    return report


def data_parallel(setting: Setting) -> Report:
    """Wall time and validation scores of a training with one process, and with two on the GPU."""
    report: Report = {}
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            run = Path(folder, f"run-{processes}")
            arguments = [str(HOME / "configs/phdos-additive.yaml"), "--training.epochs", "8", "--output", str(run)]
            arguments += ["--workers.num_workers", str(processes), "--workers.cpus_per_worker", "1"]
            if setting.is_gpu:
                arguments += ["--workers.use_gpu", "True", "--workers.gpus_per_worker", str(1 / processes)]
            report[str(processes)] = run_job("train.py", arguments)
            result = json.loads((run / "result.json").read_text())
            report[str(processes)] |= {"seconds": result["seconds"], "valid": result["valid"]}
    return report


def run_job(script: str, arguments: list[str]) -> Report:
    """Run a job of jobs/; return its wall time and the end of its output."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, HOME / "jobs" / script, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return {"wall_seconds": time.perf_counter() - start, "output": done.stdout.splitlines()[-8:]}


def networks_of(predictor: Predictor) -> list[Network]:
    """The networks that a prediction runs, one after the other."""
    network = predictor.checkpoint.network.eval()
    if isinstance(network, Ensemble):
        return list(network.members)
    return [network.spectrum, network.gap] if isinstance(network, Gapped) else [network]


def largest_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@contextmanager
def fast_products(tf32: bool) -> Iterator[None]:
    """Allow or forbid matrix products of float32 with fewer bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def without_kernel() -> Iterator[None]:
    """Sum the messages step by step, as in training."""
    available, message_kernel.is_available = message_kernel.is_available, lambda: False  # type: ignore[assignment]
    try:
        yield
    finally:
        message_kernel.is_available = available


SECTIONS: dict[str, Callable[[Setting], Report]] = {
    "limits": limits,
    "forward": forward,
    "memory": memory,
    "training": training,
    "screening": screening,
    "data_parallel": data_parallel,
}

if __name__ == "__main__":
    main()
