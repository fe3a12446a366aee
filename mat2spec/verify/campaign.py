"""A verification campaign: rows of computed spectra, and which predicted and computed spectra meet its condition."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from mat2spec.config import VerifyConfig
from mat2spec.data.materials.schema import COLUMNS, materials_table
from mat2spec.dft.engine import Calculation
from mat2spec.dos.descriptors import electron_columns, phonon_columns
from mat2spec.dos.grid import SpectrumGrid
from mat2spec.query.catalog import create_catalog, open_catalog, parquet_files
from mat2spec.storage.atomic import write_parquet
from mat2spec.storage.run_directory import PREDICTIONS, VERIFICATION, VERIFIED, RunDirectory
from mat2spec.verify.sampling import Sample

CAMPAIGN_SCHEMA = pa.schema(
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
"""One row per material. weight: materials of the run that it represents; computed_hit: NULL if it was rejected."""

_INPUT_COLUMNS = {*COLUMNS, "band_gap"}
"""Columns that a prediction has from its input; computed values do not replace them."""


def verified_row(calculation: Calculation, key: str, grid: SpectrumGrid) -> pa.Table:
    """Return the row of a computed spectrum: raw curve, spectrum on the checkpoint's grid, and its descriptors.

    Raises:
        SpectrumError: If the curve does not fill the grid, or the crystal is unstable.
    """
    spectrum = calculation.on_grid(grid)[None]
    numbers = {name: pa.array([float(value)]) for name, value in calculation.numbers.items()}
    if grid.per_cell:
        descriptors = electron_columns(spectrum, None, grid, pa.table({"band_gap": numbers["band_gap"]}))
    else:
        descriptors = phonon_columns(spectrum, grid, calculation.above_grid())
    structure = materials_table([calculation.crystal])
    return pa.table(
        {
            "material_id": structure["material_id"],
            "calculation": pa.array([key]),
            "energies" if grid.per_cell else "frequencies": pa.array([calculation.axis]),
            "densities": pa.array([calculation.densities]),
            "spectrum": pa.array(list(spectrum)),
            **descriptors,
            **numbers,  # the computed max_frequency rather than that of the smoothed spectrum
            "level": pa.array([calculation.level]),
            "engine": pa.array([calculation.engine]),
            "settings": pa.array([json.dumps(dict(calculation.settings), sort_keys=True)]),
            "cpu_seconds": pa.array([calculation.cpu_seconds]),
            "converged": pa.array([True]),
            **{name: structure[name] for name in COLUMNS if name != "material_id"},
        }
    )


def record_campaign(
    run: Path, grid: SpectrumGrid, config: VerifyConfig, sample: Sample, calculations: Sequence[str]
) -> str:
    """Write which predicted and which computed spectra meet the condition of a campaign, and update the catalog.

    Args:
        run: The run's directory.
        grid: Grid of its spectra.
        config: The settings of the campaign.
        sample: Its materials.
        calculations: Key of the calculation of each.

    Returns:
        The name of the campaign: the same for the same materials, condition and settings.
    """
    identity = [config.where, config.among, config.limit, config.sample_negatives, config.seed, config.engine]
    campaign = hashlib.sha256(json.dumps([*identity, *sorted(calculations)]).encode()).hexdigest()[:16]
    computed_hits = _computed_hits(run, config.where, calculations)
    rows = [
        {
            "campaign": campaign,
            "condition": config.where,
            "among": config.among,
            "engine": config.engine,
            "material_id": material_id,
            "calculation": calculation,
            "predicted_hit": predicted_hit,
            "weight": weight,
            "seen_in_training": seen,
            "computed_hit": computed_hits.get(material_id),
        }
        for material_id, calculation, predicted_hit, weight, seen in zip(
            sample.ids, calculations, sample.predicted_hit, sample.weights, sample.seen_in_training, strict=True
        )
    ]
    (run / VERIFICATION).mkdir(exist_ok=True)
    write_parquet(run / VERIFICATION / f"{campaign}.parquet", pa.Table.from_pylist(rows, CAMPAIGN_SCHEMA))
    create_catalog(run, grid)
    return campaign


def _computed_hits(run: Path, condition: str, calculations: Sequence[str]) -> dict[str, bool]:
    """Evaluate the condition for each material, with computed columns in place of the predicted ones."""
    files = parquet_files(run, VERIFIED)
    with open_catalog(run, RunDirectory(run).record) as connection:
        computed = connection.sql(f"SELECT * FROM {files} LIMIT 0").columns
        predicted = connection.sql(f"SELECT * FROM {PREDICTIONS} LIMIT 0").columns
        replacements = {name: f"v.{name}" for name in predicted if name in computed and name not in _INPUT_COLUMNS}
        if "band_gap_pred" in predicted:
            replacements |= {
                "band_gap_pred": "v.band_gap",
                "is_metal_prob": "v.is_metal::DOUBLE",
                "gap_source": "'computed'",
            }
        replaced = ", ".join(f'{expression} AS "{name}"' for name, expression in replacements.items())
        sql = f"""
            SELECT material_id, coalesce(({condition})::BOOLEAN, false) FROM (
                SELECT p.* REPLACE ({replaced}) FROM {PREDICTIONS} p JOIN {files} v USING (material_id)
                WHERE list_contains($calculations, v.calculation))"""
        return dict(connection.sql(sql, params={"calculations": list(calculations)}).fetchall())
