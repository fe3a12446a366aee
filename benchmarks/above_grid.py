"""The modes above the phonon grid: the bundled labels, and the heads of `phdos` that are fitted to them.

    python benchmarks/above_grid.py labels SPECTRA OUTPUT.parquet
    python benchmarks/above_grid.py fit CHECKPOINT OUTPUT [--name NAME] [--table TABLE]

`labels` writes mat2spec/data/bundled/phdos_phonondb_above_grid.parquet from phonondb's whole spectra: a materials table
with `densities` (states per cm⁻¹ per cell, at the frequencies that the schema's metadata names), `min_frequency` and
`max_frequency` (cm⁻¹). `fit` adds heads to a checkpoint of additive networks, such as phdos, in about two
minutes on one core, and prints their scores.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.special import ndtr

from mat2spec.config import AboveGridConfig
from mat2spec.data.labels.splits import split_by_system
from mat2spec.data.materials.schema import COLUMNS, read_crystals
from mat2spec.dos.grid import MODES_PER_ATOM, PHDOS_GRID
from mat2spec.dos.phonon import BROADENING, LOWEST_FREQUENCY
from mat2spec.model.checkpoint import SHIPPED, Checkpoint, resolve_checkpoint
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.paths import resolve
from mat2spec.structure.crystal import Crystal
from mat2spec.train.above_grid import add_above_grid

BUNDLED = SHIPPED.with_name("data") / "bundled"
BENCHMARK = BUNDLED / "phdos_petretto.parquet"

END = PHDOS_GRID.centers[-1]

STRETCHING = 0.97
"""Frequency of modes above the end of the curves, which are not in them, as a fraction of the highest one: stretching
modes of hydrogen, cyanides and carbides lie close together, and of the rest (hydrides) it is off by some 5 %."""

NO_MODES = 30.0
"""[cm⁻¹] If no modes are within this of the end of the grid, the number of modes above is an integer."""

SAMPLING = 0.5
"""Standard deviation of the number of modes that a curve of all modes lacks, by the root of the sum of the squares of
how far each of its points is from the mean of its neighbors; narrow peaks fall between the points."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    labels = actions.add_parser("labels", help="write the bundled labels")
    labels.add_argument("spectra", type=Path, help="whole spectra of phonondb")
    labels.add_argument("output", type=Path, help="table to write")
    fit = actions.add_parser("fit", help="add heads to a checkpoint")
    fit.add_argument("checkpoint", help="name of one that ships, or directory")
    fit.add_argument("output", type=Path, help="directory of the run")
    fit.add_argument("--name", help="name of the new checkpoint; default: that of the old one")
    fit.add_argument("--table", default=AboveGridConfig().table, help="labels")
    arguments = parser.parse_args()
    if arguments.action == "labels":
        write_labels(arguments.spectra, arguments.output)
        return
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    checkpoint = Checkpoint.load(resolve_checkpoint(arguments.checkpoint))
    config = AboveGridConfig(table=arguments.table)
    name = arguments.name or checkpoint.card.name
    record = add_above_grid(checkpoint, arguments.output, resolve(config.table), name, config)
    print(record.model_dump_json(indent=1))


def write_labels(source: Path, output: Path) -> None:
    """Write shares and mean frequencies, and a split that no training of `phdos` contradicts.

    Test rows: compositions of the test rows of the benchmark, and half of the unstable crystals whose composition no
    network saw. Validation rows: compositions of the benchmark's validation rows, the other half of these crystals, and
    a fifth of the others, by chemical system. Left out: compositions of a validation or test row that a training row of
    the benchmark has too, and unstable crystals of compositions that training had.
    """
    table = pq.read_table(source)
    crystals = [row for row in read_crystals(table) if isinstance(row, Crystal)]
    stable = table["min_frequency"].to_numpy() >= LOWEST_FREQUENCY
    split = split_of(crystals, stable)
    shares, errors, frequencies = measure(table)
    columns = {name: table[name] for name in COLUMNS}
    columns["frac_coords"] = columns["frac_coords"].cast(pa.list_(pa.float32()))
    numbers = {
        "min_frequency": table["min_frequency"].to_numpy(),
        "max_frequency": table["max_frequency"].to_numpy(),
        "share_above_grid": shares,
        "share_error": errors,
        "mean_frequency_above_grid": frequencies,
    }
    columns |= {name: pa.array(values.astype(np.float32)) for name, values in numbers.items()}
    columns["split"] = pa.array(split, pa.string())
    rows = pa.table(columns).replace_schema_metadata()
    rows = rows.filter(pa.array([part is not None for part in split]))
    write_parquet(output, rows)
    print(f"{output}: {len(rows)} rows, {output.stat().st_size / 1e3:.0f} kB")


def split_of(crystals: list[Crystal], stable: np.ndarray) -> list[str | None]:
    """Part of each crystal; None for those that are left out."""
    benchmark = pq.read_table(BENCHMARK, columns=[*COLUMNS, "split"])
    parts = dict(zip(benchmark["material_id"].to_pylist(), benchmark["split"].to_pylist(), strict=True))
    compositions: dict[str, set] = {"train": set(), "valid": set(), "test": set()}
    for row in read_crystals(benchmark):
        if isinstance(row, Crystal):
            compositions[parts[row.material_id]].add(row.composition)
    held_out = compositions["valid"] | compositions["test"]
    seen = compositions["train"] | {
        crystal.composition for crystal, is_stable in zip(crystals, stable, strict=True) if is_stable
    }
    among_stable = split_by_system(crystals, (0.8, 0.2, 0.0))
    among_unstable = split_by_system(crystals, (0.0, 0.5, 0.5))
    split: list[str | None] = []
    for crystal, is_stable, one, other in zip(crystals, stable, among_stable, among_unstable, strict=True):
        if crystal.composition in held_out & compositions["train"]:
            split.append(None)
        elif crystal.composition in held_out:
            split.append("valid" if crystal.composition in compositions["valid"] else "test")
        elif is_stable:
            split.append(one)
        else:
            split.append(None if crystal.composition in seen else other)
    return split


def measure(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of the modes above the grid, its standard error, and the mean frequency of these modes [cm⁻¹].

    A mode is spread by the Gaussian of the labels. Curves hold all modes but for narrow peaks between their points, and
    those above their end. What a curve lacks of all modes is shared out to both sides of the end of the grid, as the
    squares of their uncertainties; if the highest frequency is above the end of the curve, it is added above the grid.
    """
    axis = json.loads(table.schema.metadata[b"frequencies"])
    points = axis["start"] + axis["step"] * np.arange(axis["n"])
    weights = axis["step"] * np.stack(table["densities"].to_numpy()).astype(np.float64)
    above = ndtr((points - END) / BROADENING)
    modes = MODES_PER_ATOM * table["nsites"].to_numpy().astype(float)
    highest = table["max_frequency"].to_numpy().astype(float)
    ends_above = highest > points[-1]

    roughness = weights - (np.roll(weights, 1, axis=1) + np.roll(weights, -1, axis=1)) / 2
    inside, outside = weights @ (1 - above), weights @ above
    variance_inside, variance_outside = roughness**2 @ (1 - above) ** 2, roughness**2 @ above**2
    both = np.maximum(variance_inside + variance_outside, 1e-12)
    counted = outside + (modes - inside - outside) * variance_outside / both
    number = np.where(ends_above, modes - inside, np.where(outside > 0, counted, 0)).clip(0, modes)
    near = np.abs(points - END) <= NO_MODES
    is_integer = (weights[:, near].sum(axis=1) == 0) & (highest > END)
    number = np.where(is_integer, np.maximum(number.round(), 1), number)
    variance = np.where(ends_above, variance_inside, variance_inside * variance_outside / both)
    error = SAMPLING * np.sqrt(np.where(number > 0, variance, 0)) / modes

    beyond = np.where(ends_above, np.maximum(number - outside, 0), 0)
    total = outside + beyond
    moment = weights @ (above * points) + beyond * np.maximum(points[-1], STRETCHING * highest)
    mean = np.divide(moment, total, out=np.full(len(table), END), where=total > 1e-6)
    return number / modes, error.clip(0, 1), mean.clip(END)


if __name__ == "__main__":
    main()
