"""Computed spectra of a run beside the predicted ones: their rows, and what a condition says of both."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mat2spec.config import VerifyConfig
from mat2spec.dft.engine import Calculation
from mat2spec.dos.descriptors import electron_columns, phonon_columns
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.query.catalog import create_catalog
from mat2spec.storage.location import put
from mat2spec.storage.run_directory import CATALOG, PREDICTIONS, VERIFICATION, VERIFIED
from mat2spec.verify.sampling import Draw

SAMPLE_SCHEMA = pa.schema(
    {
        "campaign": pa.string(),
        "condition": pa.string(),
        "among": pa.string(),
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

_OF_THE_INPUT = {"material_id", "formula_pretty", "nsites", "band_gap", "atomic_numbers", "lattice", "frac_coords"}
"""Columns that a prediction has from its input, and keeps."""


def verified_row(calculation: Calculation, key: str, grid: SpectrumGrid) -> pa.Table:
    """Make the row of a computed spectrum: raw curve, spectrum on the checkpoint's grid, and what follows from it as in predictions.

    Raises:
        SpectrumError: If the curve does not fill the grid, or the crystal is unstable.
    """
    spectrum = calculation.on(grid)[None]
    numbers = {name: pa.array([float(value)]) for name, value in calculation.numbers.items()}
    if grid.per_cell:
        follows = electron_columns(spectrum, None, grid, pa.table({"band_gap": numbers["band_gap"]}))
    else:
        follows = phonon_columns(spectrum, grid)
    crystal = calculation.crystal
    return pa.table(
        {
            "material_id": pa.array([crystal.material_id]),
            "calculation": pa.array([key]),
            "energies" if grid.per_cell else "frequencies": pa.array([calculation.axis]),
            "densities": pa.array([calculation.densities]),
            "spectrum": pa.array(list(spectrum)),
            **numbers,
            **follows,
            "level": pa.array([calculation.level]),
            "engine": pa.array([calculation.engine]),
            "settings": pa.array([json.dumps(dict(calculation.settings), sort_keys=True)]),
            "cpu_seconds": pa.array([calculation.cpu_seconds]),
            "converged": pa.array([True]),
            "formula_pretty": pa.array([crystal.formula]),
            "nsites": pa.array([len(crystal)]),
            "atomic_numbers": pa.array([crystal.atomic_numbers]),
            "lattice": pa.array([crystal.lattice.ravel()]),
            "frac_coords": pa.array([crystal.frac_coords.ravel()]),
        }
    )


def conclude(run: Path, grid: SpectrumGrid, config: VerifyConfig, drawn: Draw, keys: Sequence[str]) -> str:
    """Write a campaign, with what its condition says of each predicted and each computed spectrum, and renew the catalog.

    Args:
        run: The run's directory.
        grid: Axis of its spectra.
        config: Of the campaign.
        drawn: Its materials.
        keys: Calculation of each.

    Returns:
        The name of the campaign: the same for the same materials, condition and settings.
    """
    text = json.dumps(
        [config.where, config.among, config.limit, config.sample_negatives, config.seed, config.engine, *sorted(keys)]
    )
    campaign = hashlib.sha256(text.encode()).hexdigest()[:16]
    computed = _computed_hits(run, config.where, keys)
    about = {"campaign": campaign, "condition": config.where, "among": config.among, "engine": config.engine}
    rows = [
        about
        | {"material_id": name, "calculation": key, "predicted_hit": hit, "weight": weight, "seen_in_training": seen}
        | {"computed_hit": computed.get(name)}
        for name, key, hit, weight, seen in zip(
            drawn.ids, keys, drawn.predicted, drawn.weights, drawn.seen, strict=True
        )
    ]
    content = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SAMPLE_SCHEMA), content, compression="zstd")
    (run / VERIFICATION).mkdir(exist_ok=True)
    put(run / VERIFICATION / f"{campaign}.parquet", content.getvalue().to_pybytes())
    create_catalog(run, grid)
    return campaign


def _computed_hits(run: Path, condition: str, keys: Sequence[str]) -> dict[str, bool]:
    """Ask the condition again, with the computed columns in place of the predicted ones."""
    files = f"read_parquet('{VERIFIED}/*.parquet', union_by_name = true)"
    with chdir(run), duckdb.connect(CATALOG, read_only=True) as connection:
        ours, theirs = (connection.sql(f"SELECT * FROM {source} LIMIT 0").columns for source in (files, PREDICTIONS))
        swapped = {name: f"v.{name}" for name in theirs if name in ours and name not in _OF_THE_INPUT}
        if "band_gap_pred" in theirs:
            swapped |= {
                "band_gap_pred": "v.band_gap",
                "is_metal_prob": "v.is_metal::DOUBLE",
                "gap_source": "'computed'",
            }
        replaced = ", ".join(f'{expression} AS "{name}"' for name, expression in swapped.items())
        sql = f"""
            SELECT material_id, coalesce(({condition})::BOOLEAN, false) FROM (
                SELECT p.* REPLACE ({replaced}) FROM {PREDICTIONS} p JOIN {files} v USING (material_id)
                WHERE list_contains($keys, v.calculation))"""
        return dict(connection.sql(sql, params={"keys": list(keys)}).fetchall())
