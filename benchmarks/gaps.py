"""Cost of the edge-gap rules: as columns in NumPy, and as SQL queries over a million spectra in Parquet.

    python benchmarks/gaps.py [--spectra 1000000] [--repeats 5] [--threads 2]

The spectra are the bundled DFT spectra, each sampled many times with noise, so that they compress no better than real
ones. All queries run in turn within each repeat; the table gives medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.dos.edge_gaps import ConductionBandRule, ValenceBandRule, cb_gaps, low_masks, vb_gaps
from mat2spec.dos.grid import EDOS_GRID, Spectra
from mat2spec.provenance import environment
from mat2spec.query.macros import macros

LABELS = Path(__file__).parents[1] / "mat2spec/data/bundled/edos_gpaw.parquet"
BATCH = 100_000
"""Spectra per file, and per call of NumPy."""

QUERIES = {
    "SQL: read the spectra only": "SELECT sum(spectrum[64]) FROM predictions",
    "SQL: columns of the run": "SELECT count(*) FROM predictions WHERE vb_gap_width >= 1.5 AND vb_gap_upper > -0.5",
    "SQL: masks, other widths and windows": (
        "SELECT count(vb_gap_of_mask(vb_mask, cb_mask, min_width := 0.75)) FROM predictions"
    ),
    "SQL: all limits changed, VB": (
        "SELECT count(vb_gap(spectrum, threshold := 0.8, min_width := 0.75, upper_min := -1.5)) FROM predictions"
    ),
    "SQL: all limits changed, CB": (
        "SELECT count(cb_gap(spectrum, threshold := 0.8, min_width := 0.75, lower_max := 1.5)) FROM predictions"
    ),
    "SQL: has_gap": "SELECT count(*) FROM predictions WHERE has_gap(spectrum, -1.5, -0.5)",
    "SQL: dos_integral": "SELECT sum(dos_integral(spectrum, -0.5, 0)) FROM predictions",
    "SQL: similarity to one": (
        "SELECT min(similar(spectrum, (SELECT any_value(spectrum) FROM predictions)).wasserstein) FROM predictions"
    ),
}


def noisy_spectra(count: int, seed: int) -> Spectra:
    random = np.random.default_rng(seed)
    real = np.array(pq.read_table(LABELS)["edos"].to_pylist(), np.float32)
    scales = random.uniform(0.5, 1.5, (count, 1)) * random.uniform(0.9, 1.1, (count, len(EDOS_GRID)))
    return real[random.integers(len(real), size=count)] * scales.astype(np.float32)


def write_file(path: Path, spectra: Spectra) -> None:
    below, above = low_masks(spectra, ValenceBandRule().threshold)
    columns = {
        "spectrum": pa.FixedSizeListArray.from_arrays(pa.array(spectra.ravel()), spectra.shape[1]),
        "vb_mask": pa.array(below),
        "cb_mask": pa.array(above),
    }
    for part, values in zip(("lower", "upper", "width"), vb_gaps(spectra, EDOS_GRID, ValenceBandRule()).T, strict=True):
        columns[f"vb_gap_{part}"] = pa.array(values, from_pandas=True)
    pq.write_table(pa.table(columns), path, compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    batch = noisy_spectra(BATCH, seed=0)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(config={"threads": arguments.threads}) as connection:
        for start in range(0, arguments.spectra, BATCH):
            write_file(
                Path(folder) / f"{start}.parquet", noisy_spectra(min(BATCH, arguments.spectra - start), seed=start)
            )
        connection.execute(f"CREATE VIEW predictions AS FROM read_parquet('{folder}/*.parquet')")
        for macro in macros(EDOS_GRID):
            connection.execute(macro)
        stages: dict[str, Callable[[], object]] = {
            "NumPy: VB gaps of 100,000": lambda: vb_gaps(batch, EDOS_GRID, ValenceBandRule()),
            "NumPy: CB gaps of 100,000": lambda: cb_gaps(batch, EDOS_GRID, ConductionBandRule()),
            "NumPy: masks of 100,000": lambda: low_masks(batch, 1.0),
        }
        stages |= {name: partial(fetch, connection, sql) for name, sql in QUERIES.items()}
        report(stages, arguments)


def fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def report(stages: dict[str, Callable[[], object]], arguments: argparse.Namespace) -> None:
    """Print wall-clock seconds, processor seconds, and the latter as a multiple of reading the spectra."""
    wall: dict[str, list[float]] = {name: [] for name in stages}
    processor: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(arguments.repeats):
        for name, stage in stages.items():
            start, busy = time.perf_counter(), time.process_time()
            stage()
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - busy)
    hardware, load = environment()["hardware"], os.getloadavg()[0]
    print(
        f"{arguments.spectra} spectra, {arguments.threads} threads, median of {arguments.repeats}; "
        f"{hardware}; load {load:.1f}"
    )
    reading = statistics.median(processor["SQL: read the spectra only"])
    for name in stages:
        seconds, busy = statistics.median(wall[name]), statistics.median(processor[name])
        print(f"  {name:<38}{seconds:>8.3f} s {busy:>8.3f} processor s {busy / reading:>7.2f} × reading")


if __name__ == "__main__":
    main()
