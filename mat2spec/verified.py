"""Computed spectra of a run beside the predicted ones: their table, the draw of what to compute, and what the condition says of both."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.computed_files import VERIFIED
from mat2spec.dft.calculation import Calculation
from mat2spec.errors import ConfigError
from mat2spec.query.catalog import VERIFICATION, create_catalog
from mat2spec.results import electron_columns, phonon_columns
from mat2spec.run_directory import CATALOG, PREDICTIONS
from mat2spec.spectrum import SpectrumGrid

LARGEST_SHORTLIST = 1000
"""More than that is computed only by those who say so with --limit."""

SAMPLE_SCHEMA = pa.schema(
    {
        "campaign": pa.string(),
        "condition": pa.string(),
        "engine": pa.string(),
        "material_id": pa.string(),
        "calculation": pa.string(),
        "predicted_hit": pa.bool_(),
        "weight": pa.float64(),
        "seen_in_training": pa.bool_(),
        "computed_hit": pa.bool_(),
    }
)
"""A row for each material of a campaign. weight: how many materials of the run it stands for; computed_hit: NULL if it was rejected."""


@dataclass(frozen=True)
class Draw:
    """Which materials are to be computed.

    Args:
        ids: The shortlist, or its sample, and the sample of the others.
        predicted: Whether each is of the shortlist.
        weights: How many materials of the run each stands for.
        seen: Whether the network had seen each in training.
        hits: Size of the whole shortlist.
        others: All materials that are not in it.
    """

    ids: tuple[str, ...]
    predicted: tuple[bool, ...]
    weights: tuple[float, ...]
    seen: tuple[bool, ...]
    hits: int
    others: int


def draw(run: Path, condition: str, limit: int | None, negatives: int, seed: int) -> Draw:
    """Choose materials by a condition on the view predictions; what is drawn depends on seed and ids alone.

    Raises:
        ConfigError: If the condition is no SQL, nothing meets it, or too much does.
    """
    sql = f"SELECT material_id, coalesce(({condition}), false) AS hit, seen_in_training AS seen FROM {PREDICTIONS}"
    with chdir(run), duckdb.connect(CATALOG, read_only=True) as connection:
        try:
            connection.sql(f"CREATE TEMP TABLE judged AS {sql}")
        except duckdb.Error as error:
            raise ConfigError(f"where: {condition}: {' '.join(str(error).split())}") from None
        hits, rows = connection.sql("SELECT count(*) FILTER (hit), count(*) FROM judged").fetchall()[0]
        if not hits:
            raise ConfigError(f"where: {condition}: none of {rows} predictions meets it; ask for something else")
        if limit is None and hits > LARGEST_SHORTLIST:
            raise ConfigError(f"where: {hits} predictions meet the condition, more than {LARGEST_SHORTLIST}; say how many with --limit")
        parts = [(True, hits, min(limit or hits, hits)), (False, rows - hits, min(negatives, rows - hits))]
        order = f"ORDER BY md5(material_id || '/{seed}'), material_id"
        chosen = [
            (name, hit, total / number, bool(seen))
            for hit, total, number in parts
            for name, seen in connection.sql(f"SELECT material_id, seen FROM judged WHERE hit = {hit} {order} LIMIT {number}").fetchall()
        ]
    ids, predicted, weights, seen_before = (tuple(column) for column in zip(*chosen, strict=True))
    return Draw(ids, predicted, weights, seen_before, hits, rows - hits)


def campaign_of(condition: str, limit: int | None, negatives: int, seed: int, engine: dict[str, Any]) -> str:
    """Name of a campaign, from all that decides what is in it."""
    text = json.dumps([condition, limit, negatives, seed, engine], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def verified_row(calculation: Calculation, key: str, grid: SpectrumGrid) -> pa.Table:
    """Make the row of a computed spectrum: raw curve, spectrum on the checkpoint's grid, and what follows from it as in predictions.

    Raises:
        SpectrumError: If the curve does not fill the grid.
    """
    spectrum = calculation.on(grid)[None]
    numbers = {name: pa.array([float(value)]) for name, value in calculation.numbers.items()}
    if grid.per_cell:
        follows = electron_columns(spectrum, None, grid, pa.table({"band_gap": numbers["band_gap"]}))
        for name in ("band_gap_pred", "is_metal_prob", "gap_source"):
            del follows[name]
    else:
        follows = phonon_columns(spectrum, grid)
    crystal = calculation.crystal
    return pa.table(
        {
            "material_id": pa.array([crystal.material_id]),
            "calculation": pa.array([key]),
            "energies" if grid.per_cell else "frequencies": pa.array([calculation.axis]),
            "densities": pa.array([calculation.densities], pa.list_(pa.float32())),
            "spectrum": pa.FixedSizeListArray.from_arrays(pa.array(spectrum.ravel()), len(grid)),
            **numbers,
            **follows,
            "level": pa.array([calculation.level]),
            "engine": pa.array([calculation.engine]),
            "settings": pa.array([json.dumps(dict(calculation.settings), sort_keys=True)]),
            "cpu_seconds": pa.array([calculation.cpu_seconds]),
            "converged": pa.array([True]),
            "formula_pretty": pa.array([crystal.formula]),
            "nsites": pa.array([len(crystal)], pa.int32()),
            "atomic_numbers": pa.array([crystal.atomic_numbers]),
            "lattice": pa.array([crystal.lattice.ravel()], pa.list_(pa.float64(), 9)),
            "frac_coords": pa.array([crystal.frac_coords.ravel()]),
        }
    )


def conclude(run: Path, grid: SpectrumGrid, campaign: str, condition: str, engine: str, drawn: Draw, keys: Sequence[str]) -> None:
    """Write the campaign, with what the condition says of each predicted and each computed spectrum, and renew the catalog."""
    create_catalog(run, grid)
    computed = _computed_hits(run, condition, keys)
    rows = zip(drawn.ids, keys, drawn.predicted, drawn.weights, drawn.seen, strict=True)
    table = pa.Table.from_pylist(
        [
            {
                "campaign": campaign,
                "condition": condition,
                "engine": engine,
                "material_id": name,
                "calculation": key,
                "predicted_hit": predicted,
                "weight": weight,
                "seen_in_training": seen,
                "computed_hit": computed.get(name),
            }
            for name, key, predicted, weight, seen in rows
        ],
        SAMPLE_SCHEMA,
    )
    folder = run / VERIFICATION
    folder.mkdir(exist_ok=True)
    partial = folder / f".{campaign}.partial"
    pq.write_table(table, partial, compression="zstd")
    partial.replace(folder / f"{campaign}.parquet")
    create_catalog(run, grid)


def _computed_hits(run: Path, condition: str, keys: Sequence[str]) -> dict[str, bool]:
    """Ask the condition again, with the computed columns in place of the predicted ones."""
    with chdir(run), duckdb.connect(CATALOG, read_only=True) as connection:
        ours = connection.sql(f"SELECT * FROM read_parquet('{VERIFIED}/*.parquet', union_by_name = true) LIMIT 0").columns
        theirs = connection.sql(f"SELECT * FROM {PREDICTIONS} LIMIT 0").columns
        if "converged" not in ours:
            return {}  # all were rejected
        swapped = {name: f"v.{name}" for name in theirs if name in ours and name not in _OF_THE_INPUT}
        if "band_gap_pred" in theirs:
            swapped |= {"band_gap_pred": "v.band_gap", "is_metal_prob": "v.is_metal::DOUBLE", "gap_source": "'computed'"}
        replaced = ", ".join(f'{expression} AS "{name}"' for name, expression in swapped.items())
        sql = f"""
            SELECT material_id, coalesce(({condition}), false) FROM (
                SELECT p.* REPLACE ({replaced}) FROM {PREDICTIONS} p
                JOIN read_parquet('{VERIFIED}/*.parquet', union_by_name = true) v USING (material_id)
                WHERE list_contains($keys, v.calculation))"""
        return dict(connection.sql(sql, params={"keys": list(keys)}).fetchall())


_OF_THE_INPUT = {"material_id", "formula_pretty", "nsites", "band_gap", "atomic_numbers", "lattice", "frac_coords"}
"""Columns that a prediction has from its input, and keeps."""
