"""The short measurements, each beside its last result: `make bench`, some minutes.

    python benchmarks/bench.py [--repeats 3] [--record]

CPU time of one core, so that other work on the machine changes little; what is compared is timed in turn, and the table
gives medians. Rates are also given per GFLOP/s of a matrix product on the same core, in which the last result of
another machine can be compared. `--record` writes the results to benchmarks/last.json and into the table of
benchmarks/README.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cif import by_pymatgen, texts
from distillation import graph_of
from torch.utils.flop_counter import FlopCounterMode

from mat2spec.config import GraphConfig, TrainConfig, load_config
from mat2spec.data.materials.schema import read_crystals
from mat2spec.model.checkpoint import Checkpoint, resolve_checkpoint
from mat2spec.predict.predictor import Predictor
from mat2spec.provenance import environment
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import build_graph
from mat2spec.structure.readers import cif
from mat2spec.train.inputs import TrainingInputs
from mat2spec.train.loop import Training

HOME = Path(__file__).parents[1]
LAST, README = HOME / "benchmarks/last.json", HOME / "benchmarks/README.md"
MARKS = "<!-- bench: python benchmarks/bench.py --record writes this table -->\n", "<!-- end of bench -->\n"

CHECKPOINTS = ("phdos", "edos", "phdos-mat2spec")
TRAININGS = ("phdos-additive", "phdos-sum-kl", "edos-projected-pretraining", "band-gap-vectors")
IMPORTS = ("mat2spec", "mat2spec.cli.main", "mat2spec.distributed.screening.run", "mat2spec.distributed.training.run")

PRODUCT, SIZE = "matrix product of 1,024² float32", 1024


class Measurement(NamedTuple):
    """What is timed.

    Args:
        run: Does it once.
        amounts: How much one run is, and the unit of that per second, by the name of the result.
    """

    run: Callable[[], object]
    amounts: dict[str, tuple[float, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep these results as the last ones")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # pymatgen's
    measurements = [product(), *readers(), *networks(), *trainings()]
    results = measure(measurements, arguments.repeats) | imports(arguments.repeats)
    last = json.loads(LAST.read_text()) if LAST.exists() else {"results": {}}
    table = format_table(results, last["results"])
    print(environment()["hardware"], environment()["commit"], sep=", ")
    print(table)
    if arguments.record:
        here = {name: environment()[name] for name in ("hardware", "commit", "torch")}
        here["date"] = datetime.now(UTC).date().isoformat()
        LAST.write_text(json.dumps({"environment": here, "results": results}, indent=1) + "\n")
        text = README.read_text()
        start, end = (text.index(mark) for mark in MARKS)
        line = f"{here['hardware']}, one core, commit {here['commit']}, {here['date']}.\n\n"
        README.write_text(text[: start + len(MARKS[0])] + line + table + "\n" + text[end:])


def measure(measurements: list[Measurement], repeats: int) -> dict[str, dict[str, float | str]]:
    """Time all in turn, several times, after a run of each that does not count."""
    seconds: list[list[float]] = [[] for _ in measurements]
    for repeat in range(repeats + 1):
        for measurement, measured in zip(measurements, seconds, strict=True):
            start = time.process_time()
            measurement.run()
            if repeat:
                measured.append(time.process_time() - start)
    return {
        name: {"value": amount / statistics.median(measured), "unit": unit}
        for measurement, measured in zip(measurements, seconds, strict=True)
        for name, (amount, unit) in measurement.amounts.items()
    }


def product() -> Measurement:
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    return Measurement(lambda: [left @ right for _ in range(50)], {PRODUCT: (50 * 2 * SIZE**3 / 1e9, "GFLOP/s")})


def readers() -> list[Measurement]:
    """CIFs by our reader and by pymatgen's, and graphs."""
    files = dict(list(texts(HOME / "tests/data/cifs.tar.zst"))[:300])
    some = crystals(2000)
    config = Checkpoint.load(resolve_checkpoint("phdos")).card.config.graph
    return [
        Measurement(
            lambda: [list(cif.read_cif(text, name)) for name, text in files.items()], {"CIF files": (len(files), "/s")}
        ),
        Measurement(
            lambda: [by_pymatgen(text) for text in files.values()], {"CIF files, pymatgen": (len(files), "/s")}
        ),
        Measurement(lambda: [build_graph(crystal, config) for crystal in some], {"graphs": (len(some), "crystals/s")}),
    ]


def networks() -> list[Measurement]:
    """Forward passes of the networks that ship, in crystals and in operations of matrix products."""
    measurements = []
    for name in CHECKPOINTS:
        predictor = Predictor(Checkpoint.load(resolve_checkpoint(name)), "cpu")
        graphs = [build_graph(crystal, predictor.checkpoint.card.config.graph) for crystal in crystals(998)]
        with FlopCounterMode(display=False) as counter:
            predictor.predict_graphs(graphs)
        amounts = {
            f"forward of {name}": (len(graphs), "crystals/s"),
            f"products of {name}": (counter.get_total_flops() / 1e9, "GFLOP/s"),
        }
        measurements.append(Measurement(partial(predictor.predict_graphs, graphs), amounts))
    return measurements


def trainings() -> list[Measurement]:
    """Epochs of 512 crystals, without validation, in the batches of each configuration."""
    measurements = []
    for name in TRAININGS:
        config = load_config(TrainConfig, HOME / f"configs/{name}.yaml", [])
        config = config.model_copy(update={"start_from": None, "start_with": "network"})
        splits = TrainingInputs.from_config(config).splits(config, check_graphs=False)
        few = replace(splits, train=splits.train.take(np.arange(512)), valid=splits.valid.take(np.arange(1)))
        training = Training(config, few, torch.device("cpu"))
        measurements.append(Measurement(training.run_epoch, {f"training of {name}": (512, "crystals/s")}))
    return measurements


def imports(repeats: int) -> dict[str, dict[str, float | str]]:
    """CPU time of a process that imports a module [s]."""
    results: dict[str, dict[str, float | str]] = {}
    for module in IMPORTS:
        measured = []
        for _ in range(repeats):
            before = os.times()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            after = os.times()
            measured.append(after.children_user - before.children_user + after.children_system - before.children_system)
        results[f"import {module}"] = {"value": statistics.median(measured), "unit": "s"}
    return results


def crystals(number: int) -> list[Crystal]:
    """Bundled structures that have a graph, spread over the table."""
    table = pq.read_table(HOME / "mat2spec/data/bundled/mp_structures.parquet")
    rows = np.linspace(0, len(table) - 1, number).astype(int)
    some = [row for row in read_crystals(table.take(pa.array(rows))) if isinstance(row, Crystal)]
    return [crystal for crystal in some if graph_of(crystal, GraphConfig())]


def format_table(results: dict[str, dict[str, float | str]], last: dict[str, dict[str, float | str]]) -> str:
    """A Markdown table of results, of their ratio to the last ones, and of that after division by the products."""
    lines = ["| | now | | over the last | per GFLOP/s |", "|---|---:|---|---:|---:|"]
    speed = ratio(PRODUCT, results, last)
    for name, result in results.items():
        value, unit = float(result["value"]), str(result["unit"])
        now = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        of_last = ratio(name, results, last)
        per_product = (
            None if of_last is None or speed is None else (of_last * speed if unit == "s" else of_last / speed)
        )
        columns = [name, now, unit, *(f"{x:.2f} ×" if x is not None else "–" for x in (of_last, per_product))]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def ratio(
    name: str, results: dict[str, dict[str, float | str]], last: dict[str, dict[str, float | str]]
) -> float | None:
    """A result over the last one, if there is one."""
    return float(results[name]["value"]) / float(last[name]["value"]) if name in last else None


if __name__ == "__main__":
    main()
